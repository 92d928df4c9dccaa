with forgotten as (
    delete from status_daily_open_{v} where user_no = any ($3)
)
delete from status_daily_{v} where user_no = any ($3) and $1::bigint <= $2
