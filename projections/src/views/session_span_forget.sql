delete from session_span_{v} where user_no = any ($3) and $1::bigint <= $2
