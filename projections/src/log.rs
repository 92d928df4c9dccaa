//! The log read page by page, and filtered. A page looks through a bounded part of it and says
//! where to go on, so that no question runs unbounded, however little it finds.

use domain::event::HEARTBEAT;
pub use domain::event::NAMES;
use domain::{Position, Reason, Timestamp, UserId, UserNo};
use sqlx::{PgPool, Postgres, QueryBuilder};

use crate::Error;
use crate::history::{LoggedEvent, SELECT, head, read};

/// Positions that one statement looks through where heartbeats are asked for, which have no tree to
/// walk; and how many such statements make a page.
const HEARTBEAT_WINDOW: Position = 20_000;
/// Positions that one statement looks through where few transitions may fit.
const WINDOW: Position = 100_000;
/// Statements of one page.
const WINDOWS_MAX: Position = 20;

/// Which of an event's two instants is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum By {
    /// When it happened.
    #[default]
    Occurred,
    /// When it was written down.
    Recorded,
}

/// Which events. `None` is every one; an empty list is none at all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Heartbeats too, where `types` does not say.
    pub heartbeats: bool,
    /// Of these stored names.
    pub types: Option<Vec<String>>,
    /// About these users.
    pub users: Option<Vec<UserNo>>,
    /// Ends for these reasons.
    pub reasons: Option<Vec<Reason>>,
    /// Caused by these.
    pub actors: Option<Vec<UserNo>>,
    /// The clock of `from` and `to`.
    pub by: By,
    /// At this instant or later.
    pub from: Option<Timestamp>,
    /// Before this instant.
    pub to: Option<Timestamp>,
}

/// A part of the log.
#[derive(Debug, Clone)]
pub struct Page {
    /// In position order.
    pub events: Vec<LoggedEvent>,
    /// Everything at or below it has been looked through.
    pub next: Position,
    /// The log's newest position, when this was read.
    pub head: Position,
}

/// What most events are: `event_t_rare` is an index of all other transitions.
const COMMON: [&str; 4] =
    ["session_opened", "session_closed", "session_expired", "activity_changed"];

/// The condition of that index, word for word: else no plan uses it.
fn rare() -> String {
    format!("type not in ('{}')", COMMON.join("', '"))
}

/// Which of the two classes of events are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Classes {
    Transitions,
    Heartbeats,
    Both,
}

impl Filter {
    fn classes(&self) -> Classes {
        match &self.types {
            Some(types) if types.iter().all(|name| name == HEARTBEAT) => Classes::Heartbeats,
            Some(types) if types.iter().any(|name| name == HEARTBEAT) => Classes::Both,
            None if self.heartbeats => Classes::Both,
            Some(_) | None => Classes::Transitions,
        }
    }

    fn is_empty(&self) -> bool {
        self.types.as_ref().is_some_and(Vec::is_empty)
            || self.users.as_ref().is_some_and(Vec::is_empty)
            || self.reasons.as_ref().is_some_and(Vec::is_empty)
            || self.actors.as_ref().is_some_and(Vec::is_empty)
    }

    /// How many positions one statement looks through.
    fn window(&self) -> Position {
        let chosen = self.types.is_some()
            || self.users.is_some()
            || self.reasons.is_some()
            || self.actors.is_some()
            || self.from.is_some()
            || self.to.is_some();
        match self.classes() {
            Classes::Heartbeats | Classes::Both => HEARTBEAT_WINDOW,
            Classes::Transitions if chosen => WINDOW,
            // Every row fits, so the limit ends it.
            Classes::Transitions => Position::MAX / WINDOWS_MAX,
        }
    }

    /// Positions between which all lie that fit: above the first, at or below the second.
    async fn bounds(&self, pool: &PgPool, head: Position) -> Result<(Position, Position), Error> {
        // Nothing is written down before it happens, so `from` bounds both clocks from below.
        let low: Option<Position> = sqlx::query_scalar(
            "select position_at($1 - interval '1 microsecond') where $1 is not null",
        )
        .bind(self.from)
        .fetch_optional(pool)
        .await?;
        let high: Option<Position> = sqlx::query_scalar(
            "select min(e.position) from event e
              where $1 is not null and e.class = 'T'
                and e.position > (select position_at($1 - interval '1 microsecond'))",
        )
        .bind(self.to.filter(|_| self.by == By::Recorded))
        .fetch_one(pool)
        .await?;
        Ok((low.unwrap_or(0), high.unwrap_or(head).min(head)))
    }

    fn statement(&self, above: Position, upto: Position, limit: i64) -> QueryBuilder<'_, Postgres> {
        let mut query = QueryBuilder::new(SELECT);
        query.push(" where e.position > ").push_bind(above);
        query.push(" and e.position <= ").push_bind(upto);
        match self.classes() {
            Classes::Transitions => query.push(" and e.class = 'T'"),
            Classes::Heartbeats => query.push(" and e.class = 'H'"),
            Classes::Both => &mut query,
        };
        if let Some(types) = &self.types {
            query.push(" and e.type = any (").push_bind(types).push("::text[]::event_type[])");
            let is_rare = |name: &String| name != HEARTBEAT && !COMMON.contains(&name.as_str());
            if types.iter().all(is_rare) {
                // In these words there is an index of what is rare.
                query.push(" and e.").push(rare());
            }
        }
        for (column, numbers) in [("user_no", &self.users), ("actor_no", &self.actors)] {
            if let Some(numbers) = numbers {
                let numbers: Vec<i64> = numbers.iter().map(|number| number.0).collect();
                query.push(format!(" and e.{column} = any (")).push_bind(numbers).push(")");
            }
        }
        if let Some(reasons) = &self.reasons {
            let names: Vec<&str> = reasons.iter().map(|reason| reason.as_str()).collect();
            query.push(" and e.reason = any (").push_bind(names).push("::text[]::end_reason[])");
        }
        let column = match self.by {
            By::Occurred => "occurred_at",
            By::Recorded => "recorded_at",
        };
        for (sign, edge) in [(">=", self.from), ("<", self.to)] {
            if let Some(edge) = edge {
                query.push(format!(" and e.{column} {sign} ")).push_bind(edge);
            }
        }
        query.push(" order by e.position limit ").push_bind(limit);
        query
    }
}

/// The next events above a position that fit, at most `limit`.
pub async fn page(
    pool: &PgPool,
    filter: &Filter,
    after: Position,
    limit: usize,
) -> Result<Page, Error> {
    let head = head(pool).await?;
    let mut events = Vec::new();
    if filter.is_empty() || after >= head {
        return Ok(Page { events, next: head.max(after), head });
    }
    let (low, high) = filter.bounds(pool, head).await?;
    let window = filter.window();
    let mut above = after.max(low);
    let last = above.saturating_add(window.saturating_mul(WINDOWS_MAX)).min(high);
    while above < last {
        let upto = above.saturating_add(window).min(last);
        let missing = (limit - events.len()) as i64;
        let rows = filter.statement(above, upto, missing).build().fetch_all(pool).await?;
        for row in &rows {
            events.push(read(row)?);
        }
        if events.len() >= limit {
            let next = events.last().map_or(upto, |event| event.position);
            return Ok(Page { events, next, head });
        }
        above = upto;
    }
    // Beyond its bounds nothing fits, whatever it is.
    let next = if above >= high { head } else { above };
    Ok(Page { events, next: next.max(after), head })
}

/// The numbers of those of these users who were ever seen.
pub async fn numbers(pool: &PgPool, users: &[UserId]) -> Result<Vec<UserNo>, Error> {
    let names: Vec<&str> = users.iter().map(UserId::as_str).collect();
    let numbers: Vec<i64> =
        sqlx::query_scalar("select user_no from account where user_id = any ($1)")
            .bind(names)
            .fetch_all(pool)
            .await?;
    Ok(numbers.into_iter().map(UserNo).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rare_is_asked_for_in_the_words_of_its_index() {
        let index = include_str!("../../migrations/0016_fill.sql");
        assert!(index.contains(&format!("    where {};", rare())), "{}", rare());
    }
}
