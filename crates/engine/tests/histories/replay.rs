//! Replays cases and compares views with their queries.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemill_engine::SubscribeFrom;

use super::case::Step;
use super::embedded::Embedded;
use super::play::{Database, verify};
use super::rows::{Followed, Rows};
use super::shrink::{Failure, Judge};

/// Long enough for a slow machine, short enough to end a test that hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is said of a query that only a view takes.
const ONLY_VIEW: &str = "only the batch fails: 0A000";
/// Workers of the engine that gets the steps dealt out otherwise.
const WORKERS: usize = 3;

/// What came of a case.
#[derive(Default)]
pub struct Replayed {
    /// Views that were kept and compared.
    pub views: usize,
    /// Comparisons of views with their queries.
    pub checks: usize,
    /// Queries that neither a view nor a batch takes, by what is said of them.
    pub refused: BTreeMap<String, Vec<String>>,
    /// The first thing that went wrong.
    pub failure: Option<Failure>,
}

/// A view in both engines.
struct Kept<'a> {
    name: &'a str,
    query: &'a str,
    same: Option<&'a str>,
    plain: Followed,
    dealt: Followed,
}

/// Two engines at work on one case: one with one worker gets it as it is; in the other, with three, each statement is an epoch
/// of its own and rows come and go in between.
struct Replay<'a> {
    plain: Embedded,
    dealt: Embedded,
    views: Vec<Kept<'a>>,
    replayed: Replayed,
}

/// Replays a case in engines of its own. Compares all views, or the one given and the one that must be the same.
pub async fn replay<'a>(steps: &'a [Step], only: Option<&'a str>) -> Replayed {
    let (plain, dealt) = (Embedded::new(1), Embedded::new(WORKERS));
    let mut replay = Replay { plain, dealt, views: Vec::new(), replayed: Replayed::default() };
    let same = steps.iter().find_map(|step| match step {
        Step::View { name, same, .. } if Some(name.as_str()) == only => same.as_deref(),
        _ => None,
    });
    let watched = |name: &str| only.is_none() || only == Some(name) || same == Some(name);
    for step in steps {
        if let Err(failure) = replay.step(step, watched).await {
            replay.replayed.failure = Some(failure);
            return replay.replayed;
        }
    }
    // What a batch refuses it cannot verify.
    if !replay.replayed.refused.keys().any(|why| why.starts_with(ONLY_VIEW))
        && let Some(complaint) = verify(&mut replay.dealt).await.pop()
    {
        replay.replayed.failure = Some(Failure { view: None, kind: "verify", query: "VERIFY".into(), complaint });
    }
    replay.replayed
}

/// Replays cases.
pub struct Replays;

impl Judge for Replays {
    async fn failure(&mut self, steps: &[Step], view: Option<&str>) -> Option<Failure> {
        replay(steps, view).await.failure
    }
}

async fn patiently(database: &mut Embedded, sql: &str) -> Result<Vec<String>, String> {
    let ran = tokio::time::timeout(PATIENCE, database.run(sql)).await;
    ran.unwrap_or_else(|_| Err("no answer in time".to_string()))
}

impl<'a> Replay<'a> {
    async fn step(&mut self, step: &'a Step, watched: impl Fn(&str) -> bool) -> Result<(), Failure> {
        if let Step::View { name, query, same, .. } = step {
            if !self.view(step, name, query, same.as_deref()).await? {
                return Ok(());
            }
        } else {
            let fail = |complaint| Failure { view: None, kind: "error", query: step.sql(), complaint };
            patiently(&mut self.plain, &step.sql()).await.map_err(fail)?;
            for sql in step.dealt() {
                patiently(&mut self.dealt, &sql).await.map_err(fail)?;
            }
        }
        let mut seen: BTreeMap<&str, Rows> = BTreeMap::new();
        // A new view changes no other.
        let new = matches!(step, Step::View { .. }).then(|| self.views.len().saturating_sub(1));
        for view in self.views.iter_mut().skip(new.unwrap_or(0)).filter(|view| watched(view.name)) {
            self.replayed.checks += 1;
            match compare(&mut self.plain, view, &seen).await {
                Ok(rows) => seen.extend(rows.map(|rows| (view.name, rows))),
                // A view can do more than a batch.
                Err(failure) if failure.complaint.starts_with(ONLY_VIEW) => {
                    self.replayed.refused.entry(failure.complaint).or_default().push(view.query.to_string());
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Makes a view in both engines; says whether there is one now.
    async fn view(
        &mut self,
        step: &Step,
        name: &'a str,
        query: &'a str,
        same: Option<&'a str>,
    ) -> Result<bool, Failure> {
        let fail = |kind, complaint| Failure { view: Some(name.to_string()), kind, query: step.sql(), complaint };
        let made = patiently(&mut self.plain, &step.sql()).await;
        let also = patiently(&mut self.dealt, &step.sql()).await;
        if let Err(error) = made.and(also) {
            return match patiently(&mut self.plain, query).await {
                // What nobody takes, and views that read what was refused.
                Err(_) => {
                    self.replayed.refused.entry(gist(&error)).or_default().push(query.to_string());
                    Ok(false)
                }
                // What an optimised batch does not even have to look at.
                Ok(_) if error.starts_with("0A000") => {
                    self.replayed
                        .refused
                        .entry(format!("as a view {}", gist(&error)))
                        .or_default()
                        .push(query.to_string());
                    Ok(false)
                }
                Ok(_) => Err(fail("view error", format!("only the view fails: {error}"))),
            };
        }
        let follow = |database: &Embedded| {
            let followed = database.engine.subscribe(name, SubscribeFrom::Snapshot);
            followed.map(Followed::new).map_err(|e| fail("subscribe error", e.message))
        };
        let (plain, dealt) = (follow(&self.plain)?, follow(&self.dealt)?);
        self.replayed.views += 1;
        self.views.push(Kept { name, query, same, plain, dealt });
        Ok(true)
    }
}

/// An error's message without the names in it.
fn gist(error: &str) -> String {
    let words: Vec<&str> = error.split_whitespace().take(14).collect();
    words.join(" ").split('"').step_by(2).collect::<Vec<_>>().join("_")
}

/// Compares a view with its query, with the same view in the other engine, and with the view that must have the same rows.
/// Gives the rows, unless the query has an error for one.
async fn compare(
    plain: &mut Embedded,
    view: &mut Kept<'_>,
    seen: &BTreeMap<&str, Rows>,
) -> Result<Option<Rows>, Failure> {
    let query = format!("{} AS {}", view.name, view.query);
    let fail = |kind, complaint| Failure { view: Some(view.name.to_string()), kind, query: query.clone(), complaint };
    let kept = view.plain.rows().map_err(|e| fail("negative", e))?;
    let dealt = view.dealt.rows().map_err(|e| fail("negative with 3 workers", e))?;
    let batch = match patiently(plain, view.query).await {
        Ok(lines) => Rows::of(&lines),
        Err(error) => {
            // A row without an answer is on the error side of a view, and ends a batch.
            let errors = patiently(plain, &format!("SELECT message FROM {}$errors", view.name)).await;
            if errors.is_ok_and(|rows| !rows.is_empty()) {
                return Ok(None);
            }
            return Err(fail("batch error", format!("only the batch fails: {error}")));
        }
    };
    if let Some(difference) = kept.difference(&batch, ["the view", "the batch"]) {
        return Err(fail("batch differs", difference));
    }
    if let Some(difference) = dealt.difference(&kept, ["statement by statement", "as it is"]) {
        return Err(fail("dealt differs", difference));
    }
    if let Some((other, rows)) = view.same.and_then(|name| Some((name, seen.get(name)?)))
        && let Some(difference) = kept.difference(rows, [view.name, other])
    {
        return Err(fail("same differs", difference));
    }
    Ok(Some(kept))
}
