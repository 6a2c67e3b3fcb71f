//! What `jsonb`'s operators do.

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::Int32Type;

use super::value::{Json, place};
use super::{invalid, list_texts, text_rows, texts, truths};
use crate::SqlError;

fn path_of(args: &[ArrayRef], arg: usize, row: usize) -> Vec<String> {
    list_texts(args[arg].as_list::<i32>(), row).into_iter().map(Option::unwrap_or_default).collect()
}

/// `#>` and `#>>`.
pub(super) fn at_path(args: &[ArrayRef], as_text: bool) -> Result<ArrayRef, SqlError> {
    text_rows(args, |row| {
        let path = path_of(args, 1, row);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let json = Json::parse(texts(&args[0]).value(row))?;
        Ok(json.at(&path).and_then(|found| if as_text { found.text() } else { Some(found.to_string()) }))
    })
}

/// `||`.
pub(super) fn concat(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    text_rows(args, |row| {
        let (a, b) = (Json::parse(texts(&args[0]).value(row))?, Json::parse(texts(&args[1]).value(row))?);
        let items = |json: Json| match json {
            Json::Array(items) => items,
            other => vec![other],
        };
        Ok(Some(match (a, b) {
            (Json::Object(a), Json::Object(b)) => Json::object(a.into_iter().chain(b).collect()).to_string(),
            (a, b) => Json::Array(items(a).into_iter().chain(items(b)).collect()).to_string(),
        }))
    })
}

fn without(json: Json, gone: impl Fn(&str) -> bool) -> Result<Json, SqlError> {
    match json {
        Json::Object(members) => Ok(Json::Object(members.into_iter().filter(|(key, _)| !gone(key)).collect())),
        Json::Array(items) => {
            let kept = items.into_iter().filter(|item| !matches!(item, Json::String(text) if gone(text)));
            Ok(Json::Array(kept.collect()))
        }
        _ => Err(invalid("cannot delete from scalar")),
    }
}

/// `jsonb - text`.
pub(super) fn delete_key(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    text_rows(args, |row| {
        let key = texts(&args[1]).value(row);
        Ok(Some(without(Json::parse(texts(&args[0]).value(row))?, |own| own == key)?.to_string()))
    })
}

/// `jsonb - text[]`.
pub(super) fn delete_keys(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    text_rows(args, |row| {
        let keys = path_of(args, 1, row);
        let gone = |own: &str| keys.iter().any(|key| key == own);
        Ok(Some(without(Json::parse(texts(&args[0]).value(row))?, gone)?.to_string()))
    })
}

/// `jsonb - integer`.
pub(super) fn delete_index(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let indices = args[1].as_primitive::<Int32Type>();
    text_rows(args, |row| match Json::parse(texts(&args[0]).value(row))? {
        Json::Array(mut items) => {
            if let Some(at) = place(items.len(), i64::from(indices.value(row))) {
                items.remove(at);
            }
            Ok(Some(Json::Array(items).to_string()))
        }
        _ => Err(invalid("cannot delete from object using integer index")),
    })
}

/// `#-`.
pub(super) fn delete_path(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    text_rows(args, |row| {
        let mut json = Json::parse(texts(&args[0]).value(row))?;
        change(&mut json, &path_of(args, 1, row), &Change::Delete)?;
        Ok(Some(json.to_string()))
    })
}

/// `jsonb_set(target, path, value [, create])`.
pub(super) fn set(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    text_rows(args, |row| {
        let mut json = Json::parse(texts(&args[0]).value(row))?;
        let create = args.get(3).is_none_or(|create| create.as_boolean().value(row));
        let value = Json::parse(texts(&args[2]).value(row))?;
        change(&mut json, &path_of(args, 1, row), &Change::Set { value, create })?;
        Ok(Some(json.to_string()))
    })
}

/// `jsonb_insert(target, path, value [, after])`.
pub(super) fn insert(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    text_rows(args, |row| {
        let mut json = Json::parse(texts(&args[0]).value(row))?;
        let after = args.get(3).is_some_and(|after| after.as_boolean().value(row));
        let value = Json::parse(texts(&args[2]).value(row))?;
        change(&mut json, &path_of(args, 1, row), &Change::Insert { value, after })?;
        Ok(Some(json.to_string()))
    })
}

enum Change {
    Delete,
    Set { value: Json, create: bool },
    Insert { value: Json, after: bool },
}

/// Changes what is at a path; what is not there stays so, but for a last step that creates it.
fn change(json: &mut Json, path: &[String], to: &Change) -> Result<(), SqlError> {
    let Some((step, rest)) = path.split_first() else { return Ok(()) };
    match json {
        Json::Object(members) => change_object(members, step, rest, to),
        Json::Array(items) => {
            let index: i64 =
                step.parse().map_err(|_| invalid(format!("path element is not an integer: \"{step}\"")))?;
            change_array(items, index, rest, to)
        }
        _ => Ok(()),
    }
}

fn change_object(members: &mut Vec<(String, Json)>, key: &str, rest: &[String], to: &Change) -> Result<(), SqlError> {
    let found = members.iter().position(|(own, _)| own == key);
    match (found, rest.is_empty(), to) {
        (Some(at), false, _) => return change(&mut members[at].1, rest, to),
        (Some(at), true, Change::Delete) => drop(members.remove(at)),
        (Some(at), true, Change::Set { value, .. }) => members[at].1 = value.clone(),
        (Some(_), true, Change::Insert { .. }) => return Err(invalid("cannot replace existing key")),
        (None, true, Change::Set { value, create: true } | Change::Insert { value, .. }) => {
            let all = std::mem::take(members).into_iter().chain([(key.to_owned(), value.clone())]).collect();
            if let Json::Object(sorted) = Json::object(all) {
                *members = sorted;
            }
        }
        (None, ..) => {}
    }
    Ok(())
}

fn change_array(items: &mut Vec<Json>, index: i64, rest: &[String], to: &Change) -> Result<(), SqlError> {
    let found = place(items.len(), index);
    match (found, rest.is_empty(), to) {
        (Some(at), false, _) => return change(&mut items[at], rest, to),
        (Some(at), true, Change::Delete) => drop(items.remove(at)),
        (Some(at), true, Change::Set { value, .. }) => items[at] = value.clone(),
        (Some(at), true, Change::Insert { value, after }) => items.insert(at + usize::from(*after), value.clone()),
        (None, true, Change::Set { value, create: true } | Change::Insert { value, .. }) => {
            let at = if index < 0 { 0 } else { items.len() };
            items.insert(at, value.clone());
        }
        (None, ..) => {}
    }
    Ok(())
}

/// `@>`.
pub(super) fn contains(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    truths(args, |row| {
        let (outer, inner) = (Json::parse(texts(&args[0]).value(row))?, Json::parse(texts(&args[1]).value(row))?);
        let scalar = !matches!(inner, Json::Array(_) | Json::Object(_));
        Ok(match &outer {
            // An array contains a scalar that is one of its elements.
            Json::Array(items) if scalar => items.iter().any(|item| within(item, &inner)),
            _ => within(&outer, &inner),
        })
    })
}

fn within(outer: &Json, inner: &Json) -> bool {
    match (outer, inner) {
        (Json::Object(outer), Json::Object(inner)) => {
            inner.iter().all(|(key, value)| outer.iter().any(|(own, other)| own == key && within(other, value)))
        }
        (Json::Array(outer), Json::Array(inner)) => {
            inner.iter().all(|value| outer.iter().any(|other| within(other, value)))
        }
        (Json::Number(a), Json::Number(b)) => a == b || a.parse::<f64>().ok() == b.parse::<f64>().ok(),
        (a, b) => a == b,
    }
}

fn has(json: &Json, key: &str) -> bool {
    match json {
        Json::Object(members) => members.iter().any(|(own, _)| own == key),
        Json::Array(items) => items.iter().any(|item| matches!(item, Json::String(text) if text == key)),
        Json::String(text) => text == key,
        _ => false,
    }
}

/// `?`.
pub(super) fn exists(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    truths(args, |row| Ok(has(&Json::parse(texts(&args[0]).value(row))?, texts(&args[1]).value(row))))
}

/// `?|` and `?&`.
pub(super) fn exists_of(args: &[ArrayRef], all: bool) -> Result<ArrayRef, SqlError> {
    truths(args, |row| {
        let json = Json::parse(texts(&args[0]).value(row))?;
        let keys = path_of(args, 1, row);
        Ok(if all { keys.iter().all(|key| has(&json, key)) } else { keys.iter().any(|key| has(&json, key)) })
    })
}
