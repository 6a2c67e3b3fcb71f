//! `jsonb`: values are kept as text in PostgreSQL's normal form, so that equal values are equal texts.
//!
//! Numbers stay as they are written. Objects have each key once, the last one wins, in the order of length
//! and then of bytes.

mod operators;
mod value;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, ListArray, ListBuilder, StringArray, StringBuilder,
};
use arrow::datatypes::DataType;

use self::value::Json;
pub(crate) use self::value::normal;
use super::Takes::{Any, Bool, Int, Text, Texts};
use super::{Function, Gives, function, invalid, text_rows, texts};
use crate::SqlError;
use crate::assign::value_text;

pub(super) static FUNCTIONS: &[Function] = &[
    function("jsonb", &[Text], Gives::Json, |args, _| {
        text_rows(args, |row| normal(texts(&args[0]).value(row)).map(Some))
    }),
    function("jsonb_build_object", &[Any], Gives::Json, |args, _| objects(args)).required(0).repeats(),
    function("json_build_object", &[Any], Gives::Json, |args, _| objects(args)).required(0).repeats(),
    function("jsonb_build_array", &[Any], Gives::Json, |args, _| arrays(args)).required(0).repeats(),
    function("json_build_array", &[Any], Gives::Json, |args, _| arrays(args)).required(0).repeats(),
    function("jsonb_object", &[Texts, Texts], Gives::Json, |args, _| object_of_texts(args)).required(1),
    function("json_object", &[Texts, Texts], Gives::Json, |args, _| object_of_texts(args)).required(1),
    function("to_jsonb", &[Any], Gives::Json, |args, _| converted(args)),
    function("to_json", &[Any], Gives::Json, |args, _| converted(args)),
    function("jsonb_text_value", &[Text], Gives::Json, |args, _| {
        text_rows(args, |row| Ok(Some(Json::String(texts(&args[0]).value(row).to_owned()).to_string())))
    }),
    function("jsonb_mark", &[Text], Gives::Text, |args, _| {
        text_rows(args, |row| Ok(Some(format!("{MARK}{}", texts(&args[0]).value(row)))))
    }),
    function("jsonb_typeof", &[Text], Gives::Text, |args, _| kinds(args)),
    function("json_typeof", &[Text], Gives::Text, |args, _| kinds(args)),
    function("jsonb_array_length", &[Text], Gives::Int, |args, _| lengths(args)),
    function("json_array_length", &[Text], Gives::Int, |args, _| lengths(args)),
    function("jsonb_strip_nulls", &[Text], Gives::Json, |args, _| each(args, |json| Ok(Some(json.without_nulls())))),
    function("json_strip_nulls", &[Text], Gives::Json, |args, _| each(args, |json| Ok(Some(json.without_nulls())))),
    function("jsonb_pretty", &[Text], Gives::Text, |args, _| {
        text_rows(args, |row| Ok(Some(Json::parse(texts(&args[0]).value(row))?.pretty())))
    }),
    function("jsonb_extract_path", &[Text, Text], Gives::Json, |args, _| paths(args, false)).required(1).repeats(),
    function("json_extract_path", &[Text, Text], Gives::Json, |args, _| paths(args, false)).required(1).repeats(),
    function("jsonb_extract_path_text", &[Text, Text], Gives::Text, |args, _| paths(args, true)).required(1).repeats(),
    function("json_extract_path_text", &[Text, Text], Gives::Text, |args, _| paths(args, true)).required(1).repeats(),
    function("jsonb_at_path", &[Text, Texts], Gives::Json, |args, _| operators::at_path(args, false)),
    function("jsonb_at_path_text", &[Text, Texts], Gives::Text, |args, _| operators::at_path(args, true)),
    function("jsonb_set", &[Text, Texts, Text, Bool], Gives::Json, |args, _| operators::set(args)).required(3),
    function("jsonb_insert", &[Text, Texts, Text, Bool], Gives::Json, |args, _| operators::insert(args)).required(3),
    function("jsonb_concat", &[Text, Text], Gives::Json, |args, _| operators::concat(args)),
    function("jsonb_delete", &[Text, Int], Gives::Json, |args, _| operators::delete_index(args)),
    function("jsonb_delete", &[Text, Text], Gives::Json, |args, _| operators::delete_key(args)),
    function("jsonb_delete", &[Text, Texts], Gives::Json, |args, _| operators::delete_keys(args)),
    function("jsonb_delete_path", &[Text, Texts], Gives::Json, |args, _| operators::delete_path(args)),
    function("jsonb_contains", &[Text, Text], Gives::Bool, |args, _| operators::contains(args)),
    function("jsonb_exists", &[Text, Text], Gives::Bool, |args, _| operators::exists(args)),
    function("jsonb_exists_any", &[Text, Texts], Gives::Bool, |args, _| operators::exists_of(args, false)),
    function("jsonb_exists_all", &[Text, Texts], Gives::Bool, |args, _| operators::exists_of(args, true)),
    function("jsonb_elements", &[Text], Gives::Texts, |args, _| parts(args, |json, out| elements(json, false, out))),
    function("jsonb_elements_text", &[Text], Gives::Texts, |args, _| {
        parts(args, |json, out| elements(json, true, out))
    }),
    function("jsonb_keys", &[Text], Gives::Texts, |args, _| parts(args, keys)),
    function("jsonb_values", &[Text], Gives::Texts, |args, _| parts(args, |json, out| values(json, false, out))),
    function("jsonb_values_text", &[Text], Gives::Texts, |args, _| parts(args, |json, out| values(json, true, out))),
    function("jsonb_array_of", &[Texts], Gives::Json, |args, _| array_of(args)),
    function("jsonb_object_of", &[Texts], Gives::Json, |args, _| object_of(args)),
];

/// A JSON value per row from one.
fn each(args: &[ArrayRef], change: impl Fn(Json) -> Result<Option<Json>, SqlError>) -> Result<ArrayRef, SqlError> {
    text_rows(args, |row| Ok(change(Json::parse(texts(&args[0]).value(row))?)?.map(|json| json.to_string())))
}

/// A column's value as JSON. `jsonb` cannot be told from text here; the planner marks it (see `operators`).
fn to_json(array: &dyn Array, row: usize) -> Result<Json, SqlError> {
    if array.is_null(row) {
        return Ok(Json::Null);
    }
    match array.data_type() {
        DataType::Boolean => Ok(Json::Bool(array.as_boolean().value(row))),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|i| to_json(&items, i)).collect::<Result<_, _>>().map(Json::Array)
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let members = fields.iter().zip(columns);
            let members = members.map(|(field, column)| Ok((member_name(field.name()), to_json(column, row)?)));
            Ok(Json::object(members.collect::<Result<_, SqlError>>()?))
        }
        data_type => {
            let text = value_text(array, row)?.unwrap_or_default();
            let finite = data_type.is_numeric() && text.parse::<f64>().is_ok_and(f64::is_finite);
            Ok(match data_type {
                _ if finite => Json::Number(text),
                DataType::Timestamp(..) => Json::String(text.replacen(' ', "T", 1)),
                _ if is_json_text(&text) => Json::parse(&text[1..])?,
                _ => Json::String(text),
            })
        }
    }
}

/// `row(1, 'a')` has members c0, c1, ..., which are f1, f2, ... in PostgreSQL.
fn member_name(name: &str) -> String {
    match name.strip_prefix('c').and_then(|digits| digits.parse::<u32>().ok()) {
        Some(number) => format!("f{}", number + 1),
        None => name.to_owned(),
    }
}

/// Marks the text of a `jsonb` among arguments of any type.
const MARK: char = '\u{1}';

fn is_json_text(text: &str) -> bool {
    text.starts_with(MARK)
}

fn converted(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    text_rows(args, |row| Ok(Some(to_json(&args[0], row)?.to_string())))
}

fn objects(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    if !args.len().is_multiple_of(2) {
        return Err(invalid("argument list must have even number of elements"));
    }
    rows(args, |row| {
        let members = args.chunks_exact(2).map(|pair| {
            let key = value_text(&pair[0], row)?.ok_or_else(|| invalid("null value not allowed for object key"))?;
            Ok((key, to_json(&pair[1], row)?))
        });
        Ok(Json::object(members.collect::<Result<_, SqlError>>()?))
    })
}

fn arrays(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    rows(args, |row| args.iter().map(|array| to_json(array, row)).collect::<Result<_, _>>().map(Json::Array))
}

fn rows(args: &[ArrayRef], json: impl Fn(usize) -> Result<Json, SqlError>) -> Result<ArrayRef, SqlError> {
    let rows = args.first().map_or(1, |array| array.len());
    let values = (0..rows).map(|row| Ok(Some(json(row)?.to_string())));
    Ok(Arc::new(values.collect::<Result<StringArray, SqlError>>()?))
}

/// The texts of a list.
fn list_texts(lists: &ListArray, row: usize) -> Vec<Option<String>> {
    let items = lists.value(row);
    texts(&items).iter().map(|item| item.map(str::to_owned)).collect()
}

fn object_of_texts(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    text_rows(args, |row| {
        let first = list_texts(args[0].as_list::<i32>(), row);
        let (keys, values): (Vec<_>, Vec<_>) = match args.get(1) {
            Some(second) => (first, list_texts(second.as_list::<i32>(), row)),
            None => first.chunks(2).map(|pair| (pair[0].clone(), pair.get(1).cloned().flatten())).unzip(),
        };
        if keys.len() != values.len() {
            return Err(SqlError::new("2202E", "mismatched array dimensions"));
        }
        let members = keys.into_iter().zip(values).map(|(key, value)| {
            let key = key.ok_or_else(|| invalid("null value not allowed for object key"))?;
            Ok((key, value.map_or(Json::Null, Json::String)))
        });
        Ok(Some(Json::object(members.collect::<Result<_, SqlError>>()?).to_string()))
    })
}

/// JSON texts as one array.
fn array_of(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    text_rows(args, |row| {
        let items = list_texts(args[0].as_list::<i32>(), row);
        let items = items.iter().map(|item| item.as_deref().map_or(Ok(Json::Null), Json::parse));
        Ok(Some(Json::Array(items.collect::<Result<_, _>>()?).to_string()))
    })
}

/// Pairs of a key and a value, each a JSON array, as one object.
fn object_of(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    text_rows(args, |row| {
        let pairs = list_texts(args[0].as_list::<i32>(), row);
        let members = pairs.into_iter().flatten().map(|pair| match Json::parse(&pair)? {
            Json::Array(mut pair) if pair.len() == 2 => {
                let (value, key) = (pair.pop().unwrap_or(Json::Null), pair.pop().and_then(|key| key.text()));
                Ok((key.ok_or_else(|| invalid("field name must not be null"))?, value))
            }
            _ => Err(SqlError::internal("a member of an object is no pair")),
        });
        Ok(Some(Json::object(members.collect::<Result<_, SqlError>>()?).to_string()))
    })
}

fn kinds(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    text_rows(args, |row| Ok(Some(Json::parse(texts(&args[0]).value(row))?.kind().to_owned())))
}

fn lengths(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let length = |text: Option<&str>| match text.map(Json::parse).transpose()? {
        None => Ok(None),
        Some(Json::Array(items)) => Ok(i32::try_from(items.len()).ok()),
        Some(other) => Err(invalid(format!("cannot get array length of {}", other.kind()))),
    };
    Ok(Arc::new(texts(&args[0]).iter().map(length).collect::<Result<Int32Array, SqlError>>()?))
}

fn paths(args: &[ArrayRef], as_text: bool) -> Result<ArrayRef, SqlError> {
    text_rows(args, |row| {
        let path: Vec<_> = args[1..].iter().map(|step| texts(step).value(row)).collect();
        let json = Json::parse(texts(&args[0]).value(row))?;
        Ok(json.at(&path).and_then(|found| if as_text { found.text() } else { Some(found.to_string()) }))
    })
}

type Out = ListBuilder<StringBuilder>;

/// A list per JSON value.
fn parts(args: &[ArrayRef], part: impl Fn(&Json, &mut Out) -> Result<(), SqlError>) -> Result<ArrayRef, SqlError> {
    let mut out = ListBuilder::new(StringBuilder::new());
    for text in texts(&args[0]) {
        if let Some(text) = text {
            part(&Json::parse(text)?, &mut out)?;
        }
        out.append(text.is_some());
    }
    Ok(Arc::new(out.finish()))
}

fn push(json: &Json, as_text: bool, out: &mut Out) {
    out.values().append_option(if as_text { json.text() } else { Some(json.to_string()) });
}

fn elements(json: &Json, as_text: bool, out: &mut Out) -> Result<(), SqlError> {
    let Json::Array(items) = json else {
        return Err(invalid(format!("cannot extract elements from {}", json.article())));
    };
    items.iter().for_each(|item| push(item, as_text, out));
    Ok(())
}

fn members(json: &Json) -> Result<&[(String, Json)], SqlError> {
    match json {
        Json::Object(members) => Ok(members),
        other => Err(invalid(format!("cannot take {} apart into keys and values", other.article()))),
    }
}

fn keys(json: &Json, out: &mut Out) -> Result<(), SqlError> {
    members(json)?.iter().for_each(|(key, _)| out.values().append_value(key));
    Ok(())
}

fn values(json: &Json, as_text: bool, out: &mut Out) -> Result<(), SqlError> {
    members(json)?.iter().for_each(|(_, value)| push(value, as_text, out));
    Ok(())
}

/// A truth value per row.
fn truths(args: &[ArrayRef], each: impl Fn(usize) -> Result<bool, SqlError>) -> Result<ArrayRef, SqlError> {
    let known = |row: usize| args.iter().all(|array| array.is_valid(row));
    let values = (0..args[0].len()).map(|row| if known(row) { each(row).map(Some) } else { Ok(None) });
    Ok(Arc::new(values.collect::<Result<BooleanArray, SqlError>>()?))
}
