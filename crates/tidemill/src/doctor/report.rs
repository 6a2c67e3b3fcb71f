//! What was found, for people and for programs.

use std::fmt::Write;

use indicatif::HumanBytes;
use serde_json::{Value, json};
use tidemill_storage::{CheckpointFinding, CheckpointFindings, LogFindings};

use super::{Findings, Recovery, Wrong, kind};
use crate::output::table;

/// For people.
pub fn text(findings: &Findings) -> String {
    let mut out = format!("{}\n\n", findings.data.display());
    let incarnation = findings.incarnation.map_or("unknown".into(), |number| number.to_string());
    let _ = writeln!(out, "incarnation (how often it was opened): {incarnation}\n");
    let rows = findings.sizes.iter().map(|(name, size)| {
        let name = if name.is_empty() { "." } else { *name };
        [name.to_owned(), size.files.to_string(), HumanBytes(size.bytes).to_string()].map(Some).to_vec()
    });
    out += &table(names(["folder", "files", "bytes"]), rows.collect(), vec![false, true, true]);
    match &findings.log {
        Some(log) => of_log(log, &mut out),
        None => out += "\nno log\n",
    }
    match &findings.checkpoints {
        Some(found) => of_checkpoints(found, findings.elsewhere.as_deref(), &mut out),
        None => {
            let _ = match &findings.elsewhere {
                Some(url) => writeln!(out, "\ncheckpoints: in {url}"),
                None => writeln!(out, "\nno checkpoints"),
            };
        }
    }
    of_recovery(findings, &mut out);
    for note in &findings.notes {
        let _ = writeln!(out, "note: {note}");
    }
    for Wrong { file, byte, cause, damaged } in &findings.wrong {
        let file = file.as_ref().map(|file| format!(" {}", file.display())).unwrap_or_default();
        let byte = byte.map(|byte| format!(" at byte {byte}")).unwrap_or_default();
        let _ = writeln!(out, "{}{file}{byte}: {cause}", if *damaged { "damaged:" } else { "not readable:" });
    }
    let _ = writeln!(out, "{}", verdict(findings));
    out
}

fn verdict(findings: &Findings) -> &'static str {
    match (findings.healthy(), findings.damaged()) {
        (true, _) => "healthy",
        (false, true) => "damaged",
        (false, false) => "not known",
    }
}

fn names<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(String::from).to_vec()
}

/// From the first to the last number, or that there is none.
fn range((first, end): (u64, u64)) -> String {
    if first < end { format!("{first} to {}", end - 1) } else { "none".into() }
}

fn of_log(log: &LogFindings, out: &mut String) {
    let _ = writeln!(out, "\nlog: records {}; segments: {}", range(log.records), log.segments.len());
    let rows = log.segments.iter().map(|segment| {
        let numbers = [segment.first, segment.records].map(|number| number.to_string());
        let [first, records] = numbers;
        [segment.name.clone(), first, records, HumanBytes(segment.bytes).to_string()].map(Some).to_vec()
    });
    *out += &table(names(["segment", "first", "records", "bytes"]), rows.collect(), vec![false, true, true, true]);
    if !log.kinds.is_empty() {
        let rows = log.kinds.iter().map(|(number, (records, bytes))| {
            let (name, bytes) = (kind(*number).to_owned(), HumanBytes(*bytes).to_string());
            [number.to_string(), name, records.to_string(), bytes].map(Some).to_vec()
        });
        *out += "\n";
        *out += &table(names(["kind", "name", "records", "payload"]), rows.collect(), vec![true, false, true, true]);
    }
    if let Some(torn) = &log.torn {
        let _ = writeln!(
            out,
            "\ntorn tail: record {} was being written when the power went ({}): {} bytes from byte {} of {}.\n\
             Nobody was told of it; the next start cuts it off.",
            torn.record,
            torn.cause,
            torn.bytes,
            torn.offset,
            torn.path.display()
        );
    }
}

fn state(checkpoint: &CheckpointFinding) -> &'static str {
    match (checkpoint.ghost, checkpoint.damage.is_empty()) {
        (true, _) => "too late",
        (false, true) => "whole",
        (false, false) => "damaged",
    }
}

/// Its files: how many, and their bytes.
fn files(checkpoint: &CheckpointFinding) -> Option<(usize, u64)> {
    let manifest = checkpoint.manifest.as_ref()?;
    Some((manifest.files.len(), manifest.files.iter().map(|file| file.length).sum()))
}

fn of_checkpoints(found: &CheckpointFindings, at: Option<&str>, out: &mut String) {
    let at = at.map_or(String::new(), |url| format!(" in {url}"));
    let _ = writeln!(out, "\ncheckpoints{at}: {}; files of none: {}", found.checkpoints.len(), found.unlisted.len());
    if found.checkpoints.is_empty() {
        return;
    }
    let rows = found.checkpoints.iter().map(|checkpoint| {
        let manifest = checkpoint.manifest.as_ref();
        let (count, bytes) = files(checkpoint).unzip();
        vec![
            Some(checkpoint.name.clone()),
            manifest.map(|manifest| manifest.epoch.to_string()),
            manifest.map(|manifest| manifest.log_position.to_string()),
            count.map(|count| count.to_string()),
            bytes.map(|bytes| HumanBytes(bytes).to_string()),
            Some(state(checkpoint).to_owned()),
        ]
    });
    let right = vec![false, true, true, true, true, false];
    *out += &table(names(["manifest", "epoch", "log", "files", "bytes", "state"]), rows.collect(), right);
}

fn of_recovery(findings: &Findings, out: &mut String) {
    if findings.elsewhere.is_some() && findings.checkpoints.is_none() {
        return;
    }
    let Recovery { epoch, from, to } = findings.recovery;
    let checkpoint = epoch.map_or("no checkpoint".into(), |epoch| format!("the checkpoint of epoch {epoch}"));
    let _ = writeln!(out, "\na start takes {checkpoint}, then of the log: {}", range((from, to)));
}

/// For programs.
pub fn json(findings: &Findings) -> String {
    let sizes = findings.sizes.iter().map(|(name, size)| {
        let name = if name.is_empty() { "." } else { *name };
        json!({"folder": name, "files": size.files, "bytes": size.bytes, "unfinished": size.unfinished})
    });
    let wrong = findings
        .wrong
        .iter()
        .map(|wrong| json!({"file": wrong.file, "byte": wrong.byte, "cause": wrong.cause, "damaged": wrong.damaged}));
    let Recovery { epoch, from, to } = findings.recovery;
    let value = json!({
        "data": findings.data,
        "verdict": verdict(findings),
        "incarnation": findings.incarnation,
        "folders": sizes.collect::<Vec<_>>(),
        "log": findings.log.as_ref().map(json_of_log),
        "checkpoints": findings.checkpoints.as_ref().map(json_of_checkpoints),
        "checkpoints_in": findings.elsewhere,
        "recovery": {"epoch": epoch, "from_record": from, "records": to.saturating_sub(from)},
        "notes": findings.notes,
        "wrong": wrong.collect::<Vec<_>>(),
    });
    format!("{value:#}\n")
}

fn json_of_log(log: &LogFindings) -> Value {
    let segments = log.segments.iter().map(|segment| {
        json!({"name": segment.name, "first": segment.first, "records": segment.records, "bytes": segment.bytes})
    });
    let kinds = log.kinds.iter().map(|(number, (records, bytes))| {
        json!({"kind": number, "name": kind(*number), "records": records, "payload_bytes": bytes})
    });
    let torn = log.torn.as_ref().map(|torn| {
        json!({"file": torn.path, "byte": torn.offset, "bytes": torn.bytes, "record": torn.record, "cause": torn.cause})
    });
    json!({
        "first": log.records.0,
        "end": log.records.1,
        "durable": log.floor.map(|(_, durable)| durable),
        "segments": segments.collect::<Vec<_>>(),
        "kinds": kinds.collect::<Vec<_>>(),
        "torn": torn,
    })
}

fn json_of_checkpoints(found: &CheckpointFindings) -> Value {
    let checkpoints = found.checkpoints.iter().map(|checkpoint| {
        let manifest = checkpoint.manifest.as_ref();
        let (count, bytes) = files(checkpoint).unzip();
        json!({
            "manifest": checkpoint.name,
            "state": state(checkpoint),
            "incarnation": manifest.map(|manifest| manifest.incarnation),
            "epoch": manifest.map(|manifest| manifest.epoch),
            "log": manifest.map(|manifest| manifest.log_position),
            "files": count,
            "bytes": bytes,
        })
    });
    let unlisted = found.unlisted.iter().map(|object| json!({"name": object.name, "bytes": object.length}));
    json!({
        "owner": found.owner,
        "checkpoints": checkpoints.collect::<Vec<_>>(),
        "unlisted": unlisted.collect::<Vec<_>>(),
    })
}
