//! One user's part of a view, or all of it.

use domain::{Position, UserNo};
use sqlx::{Connection, PgConnection};

use crate::Error;
use crate::db::Database;
use crate::follow;
use crate::follow::page::{self, Target};
use crate::follow::versions::{self, Change, Version};
use crate::views::View;

/// Folds one user's part anew, and takes back in whoever was set aside. Some: why it is kept as it
/// is.
pub(super) async fn repair(
    db: &mut PgConnection,
    version: &Version,
    user: UserNo,
) -> Result<Option<String>, Error> {
    let target = Target { view: version.view, version: version.version };
    let mut transaction = db.begin().await?;
    match fold_anew(&mut transaction, target, user).await {
        Ok(()) => {
            transaction.commit().await?;
            Ok(None)
        }
        Err(error) if page::is_poison(&error) => {
            transaction.rollback().await?;
            Ok(Some(format!("the view still refuses it: SQLSTATE {}", page::sqlstate(&error))))
        }
        Err(error) => Err(error),
    }
}

async fn fold_anew(db: &mut PgConnection, target: Target, user: UserNo) -> Result<(), Error> {
    let (view, version) = (target.view.name, target.version);
    let checkpoint: Option<Position> = sqlx::query_scalar(
        // Whom a build has not come to, it folds itself.
        "select position from view_version where view = $1 and version = $2
            and (filled_to is null or filled_to >= $3) for update",
    )
    .bind(view)
    .bind(version)
    .bind(user.0)
    .fetch_optional(&mut *db)
    .await?;
    let Some(checkpoint) = checkpoint else { return Ok(()) };
    // Whoever was set aside stands in the view as before the event that it could not take.
    let letter: Option<Position> = sqlx::query_scalar(
        "delete from dead_letter where view = $1 and version = $2 and user_no = $3
         returning position",
    )
    .bind(view)
    .bind(version)
    .bind(user.0)
    .fetch_all(&mut *db)
    .await?
    .into_iter()
    .min();
    let stands = letter.map_or(checkpoint, |letter| letter - 1);
    page::fold_anew(db, target, stands, checkpoint, &[user.0]).await?;
    note(db, target, Some(user), checkpoint).await
}

async fn note(
    db: &mut PgConnection,
    target: Target,
    user: Option<UserNo>,
    position: Position,
) -> Result<(), Error> {
    sqlx::query("insert into repair (what, version, user_no, position) values ($1, $2, $3, $4)")
        .bind(target.view.name)
        .bind(target.version)
        .bind(user.map(|user| user.0))
        .bind(position)
        .execute(db)
        .await?;
    let (view, version) = (target.view.name, target.version);
    tracing::info!(view, version, user_no = user.map(|user| user.0), "folded anew");
    Ok(())
}

/// Builds a view anew whose sums are nobody's in particular, beside the live one, which serves
/// until then. What was live before is known to be wrong, and goes. Some: why it is kept as it is.
pub(super) async fn build_anew(
    database: &Database,
    view: &'static View,
) -> Result<Option<String>, Error> {
    let version = match versions::change(database, view, Change::Build).await? {
        Ok(version) => version,
        Err(refusal) => return Ok(Some(refusal.to_string())),
    };
    let target = Target { view, version };
    let mut position = 0;
    follow::build(database, target, |version| position = version.position).await?;
    // Another may have confirmed it meanwhile; then nothing is kept, as is wanted.
    let _confirmed = versions::change(database, view, Change::Confirm).await?;
    let mut db = database.owner().await?;
    note(&mut db, target, None, position).await?;
    db.close().await?;
    Ok(None)
}
