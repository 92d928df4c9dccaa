//! Groups: who belongs to one, and how its members are.

use axum::extract::State;
use axum::response::Response;
use domain::{GroupName, Position, UserId, UserNo};
use projections::groups::{GROUPS_OF_USER_MAX, Joined, MEMBERS_MAX};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::{Caller, Role};
use crate::extract::{Json, NoQuery, Path, Query};
use crate::presence::bulk::{CountsBody, page_limit};
use crate::presence::status::no_store;
use crate::problem::{Problem, ProblemDocument};
use crate::shapes::{Instant, StatusBody};

/// Whether somebody belongs to a group.
#[derive(Debug, Serialize, ToSchema)]
pub struct MembershipBody {
    #[schema(value_type = String)]
    group: GroupName,
    #[schema(value_type = String)]
    user_id: UserId,
    /// As of this answer.
    member: bool,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    joined_at: Option<Instant>,
    /// The log's head.
    position: Position,
}

/// Makes a user a member, also one who was never seen yet. Holds on every node within a second.
#[utoipa::path(put, path = "/v1/groups/{group}/members/{user_id}", tag = "Live",
    operation_id = "join_group",
    params(("group" = String, Path, description = "1 to 128 of the characters of a user_id"),
        ("user_id" = String, Path)),
    responses((status = 200, body = MembershipBody, description = "Repeatable: the same answer"),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument<'static>, content_type = "application/problem+json",
            description = "`group_full`: 10,000 members; `too_many_groups`: 1,000 of one user")))]
pub async fn join(
    State(app): State<App>,
    caller: Caller,
    Path((group, user_id)): Path<(GroupName, UserId)>,
    _: NoQuery,
) -> Result<Response, Problem> {
    caller.require(&[Role::Service])?;
    let user = app.realm.names().number(&user_id).await?;
    let joined_at = match app.groups.join(&group, user).await? {
        Joined::Since(at) => Some(Instant(at)),
        Joined::GroupFull => {
            let detail = format!("a group has at most {MEMBERS_MAX} members");
            return Err(Problem::rule("group_full", detail));
        }
        Joined::TooManyGroups => {
            let detail = format!("a user is in at most {GROUPS_OF_USER_MAX} groups");
            return Err(Problem::rule("too_many_groups", detail));
        }
    };
    let position = app.realm.position();
    Ok(no_store(Json(MembershipBody { group, user_id, member: true, joined_at, position })))
}

/// Ends a membership. What was sent to the group before stays with the user.
#[utoipa::path(delete, path = "/v1/groups/{group}/members/{user_id}", tag = "Live",
    operation_id = "leave_group",
    params(("group" = String, Path), ("user_id" = String, Path)),
    responses((status = 200, body = MembershipBody, description = "Repeatable: the same answer"),
        (status = 403, body = ProblemDocument<'static>, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn leave(
    State(app): State<App>,
    caller: Caller,
    Path((group, user_id)): Path<(GroupName, UserId)>,
    _: NoQuery,
) -> Result<Response, Problem> {
    caller.require(&[Role::Service])?;
    let user = app.known_user(&user_id).await?;
    app.groups.leave(&group, user).await?;
    let (joined_at, position) = (None, app.realm.position());
    Ok(no_store(Json(MembershipBody { group, user_id, member: false, joined_at, position })))
}

/// Which part of a group.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct GroupQuery {
    /// Members of a page: 1 to 1000, 100 if not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where the page begins.
    cursor: Option<String>,
    /// Not before this position; waits up to 2 s.
    min_position: Option<i64>,
}

/// How the members of a group are.
#[derive(Debug, Serialize, ToSchema)]
pub struct GroupStatusBody {
    #[schema(value_type = String)]
    group: GroupName,
    /// All stored members, and who visits for as long as a session lives; an invisible visitor is
    /// none to others.
    total: usize,
    /// Of all who were ever seen, not of this page alone.
    counts: CountsBody,
    /// Members who never logged in: in no count and no item.
    never_seen: usize,
    /// By `user_id`.
    items: Vec<StatusBody>,
    /// Where the next page begins; null on the last.
    #[schema(required = true)]
    next_cursor: Option<String>,
    position: Position,
    server_time: Instant,
}

/// The statuses of a group's members, and their counts. For members, by what is stored or by the
/// token's `groups`, for services, admins and auditors.
#[utoipa::path(get, path = "/v1/groups/{group}/status", tag = "Live",
    operation_id = "get_group_status",
    params(("group" = String, Path), GroupQuery),
    responses((status = 200, body = GroupStatusBody,
            description = "A group without members is empty, not missing"),
        (status = 403, body = ProblemDocument<'static>,
            content_type = "application/problem+json")))]
pub async fn status(
    State(app): State<App>,
    caller: Caller,
    Path(group): Path<GroupName>,
    Query(query): Query<GroupQuery>,
) -> Result<Response, Problem> {
    let limit = page_limit(query.limit)?;
    let after = query.cursor.as_deref().map(str::parse::<UserId>).transpose();
    let after = after.map_err(|_| Problem::invalid_parameter("cursor is none of ours"))?;
    let consistency = app.at_least(query.min_position).await?;
    app.may_look_at(&caller, &group).await?;
    let viewer = app.viewer(&caller).await?;
    let mut members = app.groups.named(&group).await?;
    // Who is there for as long as a session lives is live.
    members.retain(|member| {
        let invisible = app.realm.roster().is_invisible(member.user_no);
        !(member.visits && viewer.is_hidden(&member.user_id, invisible))
    });
    let start = members.partition_point(|member| Some(&member.user_id) <= after.as_ref());
    let page = members.get(start..).unwrap_or_default();
    let more = page.len() > limit;
    let last = page.get(..limit.min(page.len())).and_then(<[_]>::last);
    let last = last.map(|member| &member.user_id);
    let numbers: Vec<UserNo> = members.iter().map(|member| member.user_no).collect();
    let look = |seen: projections::realm::Seen<'_>| {
        let on_page = Some(seen.user_id) > after.as_ref() && Some(seen.user_id) <= last;
        (viewer.counted(seen), viewer.status(seen).filter(|_| on_page))
    };
    let (mut counts, mut items, mut never_seen) = (CountsBody::default(), Vec::new(), 0);
    for found in app.realm.look(&numbers, consistency, look).await? {
        match found {
            Some((Some(status), item)) => {
                counts.add(status);
                items.extend(item);
            }
            Some((None, _)) | None => never_seen += 1,
        }
    }
    let next_cursor = last.filter(|_| more).map(ToString::to_string);
    let (total, position) = (members.len(), app.realm.position());
    let server_time = Instant(app.realm.now());
    Ok(no_store(Json(GroupStatusBody {
        group,
        total,
        counts,
        never_seen,
        items,
        next_cursor,
        position,
        server_time,
    })))
}
