//! `tidemill doctor`: what is in a data folder, whether it is whole, and what a start would make of it.
//!
//! Nothing is changed. Every byte is read and checked by the code that a start runs too, so what this calls damaged a
//! start refuses, and the other way round. It holds a share of the folder's lock meanwhile: a server that
//! runs keeps it out, and none can start beside it.

mod report;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use tidemill_env::Env;
use tidemill_storage::{
    CheckpointFindings, Inspection, LogFindings, LogOptions, Size, StorageError, inspect_checkpoints,
};

use crate::{Failure, object_store};

/// The folder of checkpoints in a data folder.
const CHECKPOINTS: &str = "checkpoints";

/// What the kinds of the log's records are called.
const KINDS: &[(u8, &str)] =
    &[(0, "epoch"), (1, "epoch (its beginning)"), (2, "epoch (more of it)"), (3, "epoch (its end)")];

/// Tell what is in a data folder, and whether it is whole; change nothing.
#[derive(clap::Args)]
#[command(after_help = "\
Everything is read and checked as a start would, without making the folder one's own: no server may run in
it meanwhile, and none can start. A torn tail, which a power failure leaves, is no damage: nobody was told of
what is in it, and the next start cuts it off.

Exit codes: 0 healthy, 1 damaged, 2 the folder cannot be looked at (in use, not there, not readable).

Examples:
  tidemill doctor /var/lib/tidemill
  tidemill doctor /var/lib/tidemill --checkpoints s3://bucket/prefix    (see tidemill serve --help)
  tidemill doctor backup/monday --json    (for programs; a copy of a stopped server's folder will do)")]
pub struct Arguments {
    /// The data folder.
    #[arg(value_name = "DATA", default_value = "data")]
    data: PathBuf,
    /// The object store in which its checkpoints are, as tidemill serve was told.
    #[arg(long, value_name = "URL", env = "TIDEMILL_CHECKPOINT_STORE")]
    checkpoints: Option<String>,
    /// Write one JSON object.
    #[arg(long)]
    json: bool,
}

/// All that was found.
struct Findings {
    data: PathBuf,
    incarnation: Option<u64>,
    /// The folders and how much is in them.
    sizes: Vec<(&'static str, Size)>,
    log: Option<LogFindings>,
    checkpoints: Option<CheckpointFindings>,
    /// Where the checkpoints are, if not in the folder.
    elsewhere: Option<String>,
    recovery: Recovery,
    wrong: Vec<Wrong>,
    /// What a person should know, without being wrong.
    notes: Vec<String>,
}

/// What a start would make of it, if nothing keeps it from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Recovery {
    /// The epoch of the checkpoint that is taken.
    epoch: Option<u64>,
    /// The first record that is not in the checkpoint.
    from: u64,
    /// The number after the last record.
    to: u64,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wrong {
    file: Option<PathBuf>,
    /// Where in the file.
    byte: Option<u64>,
    cause: String,
    /// What the disk would not let us read is not known to be damaged.
    damaged: bool,
}

impl Wrong {
    fn of(error: &StorageError) -> Self {
        let (file, byte, cause, damaged) = match error {
            StorageError::Damaged { path, offset, cause } => (Some(path), Some(*offset), cause.clone(), true),
            StorageError::Io { path, action, source } => {
                (Some(path), None, format!("cannot {action}: {source}"), false)
            }
            other => (None, None, other.to_string(), true),
        };
        Wrong { file: file.cloned(), byte, cause, damaged }
    }
}

/// Looks at a folder.
#[expect(clippy::print_stdout, reason = "the findings are the command's output")]
pub fn doctor(arguments: Arguments) -> Result<ExitCode, Failure> {
    let findings = match examine(&arguments.data, arguments.checkpoints.as_deref()) {
        Ok(findings) => findings,
        Err(failure) => {
            eprintln!("{failure}");
            return Ok(ExitCode::from(2));
        }
    };
    print!("{}", if arguments.json { report::json(&findings) } else { report::text(&findings) });
    Ok(findings.exit_code())
}

impl Findings {
    fn healthy(&self) -> bool {
        self.wrong.is_empty()
    }

    fn damaged(&self) -> bool {
        self.wrong.iter().any(|wrong| wrong.damaged)
    }

    /// Collects what is wrong and what is to be said.
    fn judge(&mut self) {
        let of_log = self.log.iter().flat_map(|log| &log.damage);
        let whole_log = self.log.as_ref().is_none_or(|log| log.damage.is_empty());
        let all = self.checkpoints.iter().flat_map(|found| &found.checkpoints);
        let (ghosts, counting): (Vec<_>, Vec<_>) = all.partition(|checkpoint| checkpoint.ghost);
        let ghosts = ghosts.len();
        let of_checkpoints = counting.iter().flat_map(|checkpoint| &checkpoint.damage);
        for wrong in of_log.chain(of_checkpoints).map(Wrong::of) {
            // Checkpoints share files.
            if !self.wrong.contains(&wrong) {
                self.wrong.push(wrong);
            }
        }
        match &self.elsewhere {
            Some(url) if self.checkpoints.is_none() => {
                self.notes.push(format!("the checkpoints are in {url}; --checkpoints {url} looks at them too"));
            }
            _ if whole_log => self.judge_reach(),
            _ => {}
        }
        if ghosts > 0 {
            self.notes.push(format!("{ghosts} checkpoints came too late from a process that had been replaced"));
        }
        let unfinished: u64 = self.sizes.iter().map(|(_, size)| size.unfinished).sum();
        if unfinished > 0 {
            let note =
                format!("{unfinished} files were being written when a process ended; the next start removes them");
            self.notes.push(note);
        }
    }

    /// Whether the log has what comes after the checkpoint.
    fn judge_reach(&mut self) {
        let Recovery { epoch, from: needed, .. } = self.recovery;
        let (first, end) = self.log.as_ref().map_or((0, 0), |log| log.records);
        let ever = self.checkpoints.as_ref().is_some_and(|found| found.owner > 0);
        if first <= needed && needed <= end {
            return;
        }
        if epoch.is_none() && !ever {
            self.notes.push(format!("the log begins with record {first}: checkpoints must be kept elsewhere"));
            return;
        }
        self.wrong.push(Wrong::of(&StorageError::NotInLog { needed, first, end }));
    }

    fn exit_code(&self) -> ExitCode {
        match (self.healthy(), self.damaged()) {
            (true, _) => ExitCode::SUCCESS,
            (false, true) => ExitCode::from(1),
            (false, false) => ExitCode::from(2),
        }
    }
}

fn examine(data: &Path, store: Option<&str>) -> Result<Findings, Failure> {
    let store = store.map(|url| Ok::<_, Failure>((url, object_store::open(url)?))).transpose()?;
    let inspection = Inspection::open(&Env::real(), data)?;
    let mut sizes = Vec::new();
    for name in ["", "log", CHECKPOINTS] {
        sizes.extend(inspection.size(name)?.map(|size| (name, size)));
    }
    let mut wrong = Vec::new();
    let incarnation = inspection.incarnation().unwrap_or_else(|error| {
        wrong.push(Wrong::of(&error));
        None
    });
    let elsewhere = inspection.elsewhere().unwrap_or_else(|error| {
        wrong.push(Wrong::of(&error));
        None
    });
    if incarnation.is_none() && wrong.is_empty() && sizes.len() == 1 {
        return Err(Failure(format!("error: {} is not a data folder: no server ever opened it", data.display())));
    }
    let bar = progress(sizes.iter().filter(|(name, _)| !name.is_empty()).map(|(_, size)| size.bytes).sum());
    bar.set_message("log");
    let log = inspection.log(LogOptions::default().max_record, &mut |bytes| bar.inc(bytes))?;
    bar.set_message(CHECKPOINTS);
    let checkpoints = match (&store, &elsewhere) {
        (Some((_, store)), _) => Some(inspect_checkpoints(store, &mut |bytes| bar.inc(bytes))?),
        (None, Some(_)) => None,
        (None, None) => inspection.checkpoints(CHECKPOINTS, &mut |bytes| bar.inc(bytes))?,
    };
    drop(bar);
    let elsewhere = store.map(|(url, _)| url.to_owned()).or(elsewhere);

    let recovery = recovery(log.as_ref(), checkpoints.as_ref());
    let mut findings = Findings {
        data: data.to_owned(),
        incarnation,
        sizes,
        log,
        checkpoints,
        elsewhere,
        recovery,
        wrong,
        notes: Vec::new(),
    };
    findings.judge();
    Ok(findings)
}

fn recovery(log: Option<&LogFindings>, checkpoints: Option<&CheckpointFindings>) -> Recovery {
    let newest = checkpoints.and_then(CheckpointFindings::newest_whole);
    let to = log.map_or(0, |log| log.records.1);
    Recovery { epoch: newest.map(|manifest| manifest.epoch), from: newest.map_or(0, |m| m.log_position), to }
}

fn progress(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes).with_finish(ProgressFinish::AndClear);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:30} {percent:>3}% {binary_bytes_per_sec} {msg} {eta} left");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// What a kind of record is called.
fn kind(number: u8) -> &'static str {
    KINDS.iter().find(|(kind, _)| *kind == number).map_or("unknown", |(_, name)| name)
}
