//! Request bodies into Arrow.

use arrow::array::RecordBatch;
use memchr::memmem;
use tidemill_connect::{CsvOptions as CsvFormat, Decoded, Format, FormatKind};
use tidemill_engine::{BadRow, Relation, SqlError, state};
use tidemill_plan::ColumnPath;

use super::encoding::{Encoding, without_mark};
use super::error::ApiError;

/// How CSV is to be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct CsvOptions {
    /// Whether the first line names the columns.
    pub header: Option<bool>,
    /// Between fields.
    pub delimiter: Option<char>,
}

/// What a body holds.
#[derive(Debug)]
pub(crate) struct Rows {
    /// The columns of the batches, as numbers of the table's.
    pub columns: Vec<usize>,
    /// The good rows.
    pub batches: Vec<RecordBatch>,
    /// The other records.
    pub bad: Vec<BadRow>,
}

/// Decodes a body.
pub(crate) fn decode(
    encoding: Encoding,
    table: &Relation,
    body: &[u8],
    options: &CsvOptions,
) -> Result<Rows, ApiError> {
    let kind = match encoding {
        Encoding::Ndjson => FormatKind::Json,
        Encoding::JsonArray => FormatKind::JsonArray,
        Encoding::Csv => FormatKind::Csv(csv_format(options)?),
        Encoding::ArrowStream => FormatKind::Arrow,
    };
    if matches!(encoding, Encoding::Ndjson | Encoding::JsonArray) {
        looks_like_json(body)?;
    }
    // Cells without names stand for all columns in order.
    let nameless = matches!(&kind, FormatKind::Csv(csv) if !csv.header);
    let columns: Vec<usize> = settable(table).filter(|c| nameless || !left_to_default(table, *c, body)).collect();
    let paths: Vec<ColumnPath> = columns.iter().map(|c| ColumnPath::column(*c)).collect();
    let required: Vec<usize> = columns.iter().copied().filter(|c| !table.schema.field(*c).is_nullable()).collect();
    let decoded = Format::new(kind).decode(&table.schema, Some(&paths), &required, body);
    let Decoded { rows, bad } = decoded.map_err(|e| ApiError::malformed(e.to_string()))?;
    let batches = if rows.num_rows() > 0 { vec![rows] } else { Vec::new() };
    Ok(Rows { columns, batches, bad })
}

/// The columns that are not computed from others.
fn settable(table: &Relation) -> impl Iterator<Item = usize> + '_ {
    (0..table.schema.fields().len()).filter(|c| table.generated.iter().all(|g| g.column != *c))
}

/// Whether no record sets a column that has a default. If one does, records without it have NULL
/// there: a batch has the same columns in all rows.
fn left_to_default(table: &Relation, column: usize, body: &[u8]) -> bool {
    let has_default = table.defaults.iter().any(|(c, _)| *c == column);
    has_default && memmem::find(body, table.schema.field(column).name().as_bytes()).is_none()
}

fn csv_format(options: &CsvOptions) -> Result<CsvFormat, ApiError> {
    let standard = CsvFormat::default();
    let delimiter = match options.delimiter {
        None => standard.delimiter,
        Some(c) if c.is_ascii() && !matches!(c, '"' | '\n' | '\r') => c as u8,
        Some(c) => {
            let error = SqlError::new(state::INVALID_PARAMETER_VALUE, format!("{c:?} cannot be the delimiter"));
            return Err(error.hint("one ASCII character other than a quote or a line break").into());
        }
    };
    Ok(CsvFormat { delimiter, header: options.header.unwrap_or(standard.header), ..standard })
}

/// Refuses what is no JSON of any kind, instead of filing it away as bad records.
fn looks_like_json(body: &[u8]) -> Result<(), ApiError> {
    match without_mark(body).trim_ascii_start().first() {
        None | Some(b'{' | b'[') => Ok(()),
        Some(_) => Err(ApiError::malformed("the body is not JSON objects")
            .hint("send one object per line, or an array of objects; for CSV set Content-Type: text/csv")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use axum::http::StatusCode;

    use super::super::status::testing::relation_status;
    use super::*;

    fn table() -> Relation {
        let mut table = relation_status("t").relation.as_ref().clone();
        table.schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8, true),
            Field::new("origin", DataType::Utf8, true),
        ]));
        table.defaults = vec![(2, "'here'".into())];
        table
    }

    fn rows(encoding: Encoding, body: &str) -> Rows {
        decode(encoding, &table(), body.as_bytes(), &CsvOptions::default()).expect("decodes")
    }

    fn ids(rows: &Rows) -> Vec<i64> {
        rows.batches.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    #[test]
    fn lines_arrays_and_csv_give_the_same_rows() {
        let lines = rows(Encoding::Ndjson, "{\"id\":1,\"name\":\"a\"}\n\n{\"id\":2}\n");
        let array = rows(Encoding::JsonArray, "[{\"id\":1,\"name\":\"a\"}, {\"id\":2}]");
        let csv = rows(Encoding::Csv, "name,id\na,1\n,2\n");
        for rows in [&lines, &array, &csv] {
            assert_eq!(ids(rows), [1, 2]);
            assert_eq!(rows.columns, [0, 1]);
            assert!(rows.bad.is_empty());
            assert!(rows.batches[0].column(1).is_null(1));
        }
    }

    #[test]
    fn a_column_with_a_default_is_taken_when_some_record_has_it() {
        assert_eq!(rows(Encoding::Ndjson, "{\"id\":1}\n{\"id\":2,\"origin\":\"there\"}").columns, [0, 1, 2]);
    }

    #[test]
    fn bad_records_are_told_with_their_line() {
        let rows = rows(Encoding::Ndjson, "{\"id\":1}\n{\"id\":\"x\"}\nnonsense\n{\"name\":\"no id\"}\n");
        assert_eq!(ids(&rows), [1]);
        assert_eq!(rows.bad.iter().map(|b| b.position).collect::<Vec<_>>(), [2, 3, 4]);
        assert!(rows.bad[0].reason.contains("id"), "{}", rows.bad[0].reason);
    }

    #[test]
    fn what_makes_no_sense_at_all_is_refused() {
        for (encoding, body) in [(Encoding::Ndjson, "hello"), (Encoding::ArrowStream, "hello")] {
            let error = decode(encoding, &table(), body.as_bytes(), &CsvOptions::default()).expect_err("refused");
            assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        }
        let options = CsvOptions { delimiter: Some('é'), header: None };
        assert!(decode(Encoding::Csv, &table(), b"id\n1\n", &options).is_err());
    }

    #[test]
    fn csv_without_a_header_has_the_columns_in_order() {
        let options = CsvOptions { delimiter: Some(';'), header: Some(false) };
        let rows = decode(Encoding::Csv, &table(), b"1;a;b\n2;c;d\n", &options).expect("decodes");
        assert_eq!(ids(&rows), [1, 2]);
        assert_eq!(rows.columns, [0, 1, 2]);
    }
}
