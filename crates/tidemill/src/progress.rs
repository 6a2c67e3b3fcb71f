//! How far reading has come, on a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use tidemill_engine::{Engine, RelationKind};

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(100);

/// Moves a bar on the standard error output until it is dropped. Does nothing when no person looks or
/// nobody knows how much there is to read.
pub async fn show(engine: Engine) {
    if !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let bar = ProgressBar::new(1).with_style(style()).with_finish(ProgressFinish::AndClear);
    loop {
        tokio::time::sleep(TICK).await;
        let status = engine.status();
        let sources = status.relations.iter().filter(|r| r.relation.kind == RelationKind::Source);
        let progress: Option<Vec<(u64, u64)>> = sources.map(|source| source.progress).collect();
        let Some(progress) = progress.filter(|progress| !progress.is_empty()) else { continue };
        bar.set_length(progress.iter().map(|(_, all)| all).sum::<u64>().max(1));
        bar.set_position(progress.iter().map(|(read, _)| read).sum());
        bar.set_message(format!("{} rows", status.rows_in));
    }
}

fn style() -> ProgressStyle {
    let template = "{bar:30} {percent:>3}% {binary_bytes_per_sec} {msg} {eta} left";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
