//! The JSON decoder against what it must never get wrong.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema, SchemaRef, TimeUnit};
use proptest::prelude::*;
use tidemill_connect::{Decoded, Format, FormatKind, json_array, json_row};
use tidemill_plan::ColumnPath;

fn schema() -> SchemaRef {
    let inner = Fields::from(vec![
        Field::new("x", DataType::Int64, true),
        Field::new("y", DataType::Utf8, true),
        Field::new("deep", DataType::Struct(vec![Field::new("z", DataType::Float64, true)].into()), true),
    ]);
    let jsonb = [("tidemill.type".to_string(), "jsonb".to_string())].into();
    let list = |item| DataType::List(Arc::new(Field::new("item", item, true)));
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("price", DataType::Decimal128(12, 2), true),
        Field::new("ratio", DataType::Float64, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("flag", DataType::Boolean, true),
        Field::new("small", DataType::Int16, true),
        Field::new("s", DataType::Struct(inner.clone()), true),
        Field::new("tags", list(DataType::Utf8), true),
        Field::new("items", list(DataType::Struct(inner)), true),
        Field::new("j", DataType::Utf8, true).with_metadata(jsonb),
    ]))
}

fn decode(body: &[u8]) -> Decoded {
    Format::new(FormatKind::Json).decode(&schema(), None, &[0], body).expect("decodes")
}

fn column_paths(columns: &[(usize, &[&str])]) -> Vec<ColumnPath> {
    let path = |(column, fields): &(usize, &[&str])| ColumnPath {
        column: *column,
        fields: fields.iter().map(|f| f.to_string()).collect(),
    };
    columns.iter().map(path).collect()
}

fn printed(rows: &RecordBatch) -> Vec<String> {
    let line = |row| {
        let mut out = String::new();
        json_array(rows, row, &mut out);
        out
    };
    (0..rows.num_rows()).map(line).collect()
}

fn as_lines(rows: &RecordBatch) -> String {
    let mut out = String::new();
    for row in 0..rows.num_rows() {
        json_row(rows, row, &mut out);
        out.push('\n');
    }
    out
}

fn only(columns: &[(usize, &[&str])], body: &str) -> Decoded {
    let columns = column_paths(columns);
    Format::new(FormatKind::Json).decode(&schema(), Some(&columns), &[0], body.as_bytes()).expect("decodes")
}

#[test]
fn odd_but_right() {
    let body = r#"
{"id":1,"name":"a\u00e9\ud83d\ude00\n","price":1.255,"ratio":-1e3,"at":"2024-01-01 00:00:01.5","flag":true}
  { "flag" : "f" , "id" : "2" , "unknown" : [ { "a" : "}\"" } , 1 ] , "price" : "7" , "ratio" : "0.5" }
{"id":3,"id":4,"s":{"x":1,"y":"u"},"s":{"y":"v"},"name":"first","name":null}
{"i\u0064":5,"at":1704067200000,"small":1e2,"name":12.50,"tags":["a",null,"b\"c"],"items":[{"x":1},null,{}]}
{"id":6,"at":"2024-01-01T02:00:00+02:00","j": {"k": [1, 2.50]},"s":null,"tags":[]}
{"id":7,"name":{"a": 1},"j":"text","s":{"deep":{"z":1}}}
"#;
    let decoded = decode(body.as_bytes());
    assert_eq!(decoded.bad, []);
    assert_eq!(
        printed(&decoded.rows),
        [
            r#"[1,"aé😀\n",1.26,-1000,"2024-01-01T00:00:01.5",true,null,null,null,null,null]"#,
            r#"[2,null,7.00,0.5,null,false,null,null,null,null,null]"#,
            r#"[4,null,null,null,null,null,null,{"x":null,"y":"v","deep":null},null,null,null]"#,
            concat!(
                r#"[5,"12.50",null,null,"2024-01-01T00:00:00",null,100,null,["a",null,"b\"c"],"#,
                r#"[{"x":1,"y":null,"deep":null},null,{"x":null,"y":null,"deep":null}],null]"#
            ),
            r#"[6,null,null,null,"2024-01-01T00:00:00",null,null,null,[],null,{"k": [1, 2.50]}]"#,
            r#"[7,"{\"a\": 1}",null,null,null,null,null,{"x":null,"y":null,"deep":{"z":1}},null,null,"text"]"#,
        ]
    );
}

#[test]
fn bad_lines_are_bad_alone() {
    let body = "{\"id\":1}\n{\"id\":\n{\"id\":\"x\"}\n{\"name\":\"no id\"}\n{\"id\":null}\n{\"id\":2,\"small\":40000}\n\
        {\"id\":3,\"s\":{\"x\":\"q\"}}\n{\"id\":4} x\n[1]\n\
        {\"id\":5,\"tags\":[\"a\",[1]],\"items\":[{\"x\":1}]}\n\
        {\"id\":6,\"items\":[{\"x\":1},{\"x\":[]}]}\n{\"id\":7,\"name\":\"\\x\"}\n{\"id\":8,}\n\
        {\"id\":9 \"a\":1}\n{\"id\":10}\n";
    let decoded = decode(body.as_bytes());
    assert_eq!(decoded.rows.column(0).as_primitive::<Int64Type>().values(), &[1, 5, 10]);
    let bad: Vec<(u64, &str)> = decoded.bad.iter().map(|b| (b.position, b.reason.as_str())).collect();
    assert_eq!(
        bad,
        [
            (2, "column id: not a JSON value"),
            (3, "column id: not an integer"),
            (4, "column id: NULL where a value has to be"),
            (5, "column id: NULL where a value has to be"),
            (6, "column small: integer out of range"),
            (7, "column s.x: not an integer"),
            (8, "more text after the object"),
            (9, "not a JSON object"),
            (11, "column items.x: an object or array where a scalar has to be"),
            (12, "column name: an unknown escape in a string"),
            (13, "a member without a name"),
            (14, "neither a comma nor a brace after a value"),
        ]
    );
}

#[test]
fn invalid_utf8_spoils_only_its_row() {
    let mut body =
        b"{\"id\":1,\"name\":\"a\xff\"}\n{\"id\":2,\"name\":\"\xc3\xa9\"}\n{\"id\":3,\"j\":[\"\xff\"]}\n".to_vec();
    body.extend_from_slice(b"{\"id\":4,\"skipped\":\"\xff\"}\n");
    let decoded = decode(&body);
    assert_eq!(decoded.rows.column(0).as_primitive::<Int64Type>().values(), &[2, 4]);
    assert_eq!(decoded.rows.column(1).as_string::<i32>().value(0), "é");
    assert_eq!(decoded.bad.len(), 2);
}

#[test]
fn fields_of_structs() {
    let body = "{\"id\":1,\"s\":{\"x\":1,\"y\":\"a\",\"deep\":{\"z\":2.5}}}\n{\"id\":2,\"s\":null}\n\
        {\"id\":3,\"s\":{}}\n{\"id\":4,\"s\":{\"deep\":null,\"y\":\"b\"}}\n";
    let decoded = only(&[(7, &["deep", "z"]), (0, &[]), (7, &["y"]), (7, &["y"])], body);
    assert_eq!(
        printed(&decoded.rows),
        ["[2.5,1,\"a\",\"a\"]", "[null,2,null,null]", "[null,3,null,null]", "[null,4,\"b\",\"b\"]"]
    );
    let both = only(&[(7, &["x"]), (7, &[])], body);
    assert_eq!(both.rows.column(0).null_count(), 3);
    assert_eq!(only(&[], body).rows.num_rows(), 4);
    let bad = only(&[(7, &["x"])], "{\"s\":5}\n{\"s\":{\"x\":6}}\n");
    assert_eq!((bad.rows.num_rows(), bad.bad.len()), (1, 1));
}

#[test]
fn a_json_array() {
    let format = Format::new(FormatKind::JsonArray);
    let decode = |body: &str| format.decode(&schema(), None, &[0], body.as_bytes()).expect("decodes");
    let good = decode(" [ {\"id\":1},\n{\"id\":2,\"name\":\"x\"} ] ");
    assert_eq!((good.rows.num_rows(), good.bad.len()), (2, 0));
    let mixed = decode("[{\"id\":1},{\"id\":\"x\"},7,{\"id\":2}]");
    assert_eq!(mixed.rows.num_rows(), 2);
    assert_eq!(mixed.bad.iter().map(|b| b.position).collect::<Vec<_>>(), [2, 3]);
    for (body, rows) in [("[", 0), ("[{\"id\":1}", 1), ("[{\"id\":1},]", 1), ("[{\"id\":1}] x", 1), ("[{\"id\":1", 0)] {
        let broken = decode(body);
        assert_eq!((broken.rows.num_rows(), broken.bad.len()), (rows, 1), "{body}");
    }
    assert_eq!(decode("[]").rows.num_rows(), 0);
    assert_eq!(decode("{\"id\":1}\n{\"id\":2}").rows.num_rows(), 2);
}

#[test]
fn deep_nesting_is_refused() {
    let body = format!("{{\"id\":1,\"q\":{}}}\n{{\"id\":2}}\n", "[".repeat(1_000_000));
    let decoded = decode(body.as_bytes());
    assert_eq!((decoded.rows.num_rows(), decoded.bad.len()), (1, 1));
    assert_eq!(decoded.bad[0].bytes.len(), 4096);
}

#[derive(Clone, Debug)]
struct Row {
    id: i64,
    name: Option<String>,
    cents: Option<i64>,
    ratio: Option<f64>,
    at: Option<i64>,
    flag: Option<bool>,
    small: Option<i16>,
    s: Option<(Option<i64>, Option<String>)>,
    tags: Option<Vec<Option<String>>>,
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let text = || prop_oneof![any::<String>(), "[a-z\"\\\\ ]{0,12}"];
    let scalars = (
        any::<i64>(),
        proptest::option::of(text()),
        proptest::option::of(-999_999_999_999i64..999_999_999_999),
        proptest::option::of(proptest::num::f64::NORMAL),
        proptest::option::of(-60_000_000_000_000_000i64..200_000_000_000_000_000),
        any::<Option<bool>>(),
        any::<Option<i16>>(),
    );
    let nested = (
        proptest::option::of((any::<Option<i64>>(), proptest::option::of(text()))),
        proptest::option::of(proptest::collection::vec(proptest::option::of(text()), 0..4)),
    );
    let row = (scalars, nested).prop_map(|((id, name, cents, ratio, at, flag, small), (s, tags))| Row {
        id,
        name,
        cents,
        ratio,
        at,
        flag,
        small,
        s,
        tags,
    });
    proptest::collection::vec(row, 0..12)
}

/// A time as text; independent of the code under test.
fn time_text(micros: i64) -> String {
    arrow::temporal_conversions::timestamp_us_to_datetime(micros)
        .expect("in range")
        .format("%Y-%m-%dT%H:%M:%S%.6f")
        .to_string()
}

/// A row's members in its own words.
fn members(row: &Row) -> Vec<(&'static str, String)> {
    fn or_null<T>(value: &Option<T>, text: impl Fn(&T) -> String) -> String {
        value.as_ref().map_or("null".into(), text)
    }
    let quoted = |s: &String| serde_json::to_string(s).expect("text");
    let decimal = |c: &i64| {
        let sign = if *c < 0 { "-" } else { "" };
        format!("{sign}{}.{:02}", c.abs() / 100, c.abs() % 100)
    };
    let s = or_null(&row.s, |(x, y)| format!("{{\"x\":{},\"y\":{}}}", or_null(x, i64::to_string), or_null(y, quoted)));
    let tags =
        or_null(&row.tags, |t| format!("[{}]", t.iter().map(|t| or_null(t, quoted)).collect::<Vec<_>>().join(", ")));
    vec![
        ("id", row.id.to_string()),
        ("name", or_null(&row.name, quoted)),
        ("price", or_null(&row.cents, decimal)),
        ("ratio", or_null(&row.ratio, |f| format!("{f:e}"))),
        ("at", or_null(&row.at, |t| format!("\"{}\"", time_text(*t)))),
        ("flag", or_null(&row.flag, bool::to_string)),
        ("small", or_null(&row.small, i16::to_string)),
        ("s", s),
        ("tags", tags),
    ]
}

fn line(members: &[(&str, String)], space: &str) -> String {
    let members = members.iter().map(|(k, v)| format!("{space}\"{k}\":{space}{v}{space}"));
    format!("{space}{{{}}}{space}\n", members.collect::<Vec<_>>().join(","))
}

fn plain(rows: &[Row]) -> String {
    rows.iter().map(|r| line(&members(r), "")).collect()
}

fn arrow_json(body: &str) -> RecordBatch {
    // Decimals are compared by another test: arrow-json does not round.
    let schema = schema();
    let mut decoder =
        arrow_json::ReaderBuilder::new(schema.clone()).with_batch_size(1 << 16).build_decoder().expect("valid");
    decoder.decode(body.as_bytes()).expect("valid");
    decoder.flush().expect("valid").unwrap_or_else(|| RecordBatch::new_empty(schema))
}

#[test]
fn each_line_has_a_space_of_its_own() {
    let body =
        "{\"id\":1,\"small\":2}\n{\"id\": 3, \"small\": 4}\n{ \"id\" : 5 , \"small\" : 6 }\n{\"id\":7,\"small\":\t8}\n";
    let decoded = decode(body.as_bytes());
    assert_eq!(decoded.bad, []);
    let values = |column: usize| arrow::compute::cast(decoded.rows.column(column), &DataType::Int64).expect("numbers");
    assert_eq!(values(0).as_primitive::<Int64Type>().values().to_vec(), [1, 3, 5, 7]);
    assert_eq!(values(6).as_primitive::<Int64Type>().values().to_vec(), [2, 4, 6, 8]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn rows_come_back(rows in rows()) {
        let body = plain(&rows);
        let decoded = decode(body.as_bytes());
        prop_assert_eq!(&decoded.bad, &[]);
        prop_assert_eq!(printed(&decoded.rows), printed(&arrow_json(&body)));
        let again = decode(as_lines(&decoded.rows).as_bytes());
        prop_assert_eq!(again.rows, decoded.rows);
    }

    #[test]
    fn order_and_space_do_not_matter(
        rows in rows(),
        seed in any::<u64>(),
        spaces in proptest::collection::vec("[ \t]{0,3}", 1..4),
    ) {
        let expected = decode(plain(&rows).as_bytes());
        let mut state = seed;
        let mut shuffled = String::new();
        for row in &rows {
            let mut members = members(row);
            members.push(("nobody", "{\"a\":[1,\"}\"]}".into()));
            for i in (1..members.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                members.swap(i, (state >> 33) as usize % (i + 1));
            }
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            shuffled += &line(&members, &spaces[(state >> 33) as usize % spaces.len()]);
        }
        let decoded = decode(shuffled.as_bytes());
        prop_assert_eq!(decoded.rows, expected.rows);
        prop_assert!(decoded.bad.is_empty());
    }

    #[test]
    fn pieces_do_not_matter(rows in rows(), cuts in proptest::collection::vec(1usize..60, 1..40), most in 1usize..5) {
        let body = plain(&rows).into_bytes();
        let expected = decode(&body);
        let mut decoder = Format::new(FormatKind::Json).decoder(&schema(), None, &[0]).expect("valid");
        let (mut done, mut have, mut batches) = (0, 0, Vec::new());
        let mut cuts = cuts.iter().cycle();
        while done < body.len() {
            let step = decoder.decode(&body[done..have], have == body.len(), most);
            done += step;
            if decoder.records() >= most {
                batches.push(decoder.take().expect("valid").rows);
            } else if step == 0 {
                have = (have + cuts.next().expect("endless")).min(body.len());
            }
        }
        batches.push(decoder.take().expect("valid").rows);
        let joined = arrow::compute::concat_batches(&expected.rows.schema(), &batches).expect("valid");
        prop_assert_eq!(joined, expected.rows);
    }

    #[test]
    fn good_rows_survive_bad_ones(
        rows in rows(),
        places in proptest::collection::vec((0usize..12, 0usize..300, any::<u8>()), 1..8),
    ) {
        let expected = decode(plain(&rows).as_bytes());
        let mut body = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            for (_, at, byte) in places.iter().filter(|(place, ..)| *place == i) {
                // Cut somewhere, so surely not a row, and with a strange byte.
                let text = line(&members(row), "");
                let mut bad = text.as_bytes()[..(*at).min(text.len() - 2)].to_vec();
                bad.insert(bad.len() / 2, if *byte == b'\n' { b' ' } else { *byte });
                bad.push(b'\n');
                body.extend_from_slice(&bad);
            }
            body.extend_from_slice(line(&members(row), "").as_bytes());
        }
        let decoded = decode(&body);
        prop_assert_eq!(decoded.rows, expected.rows);
    }

    #[test]
    fn mutations_never_panic(
        rows in rows(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut body = plain(&rows).into_bytes();
        if !body.is_empty() {
            for (place, byte) in &changes {
                let at = place.index(body.len());
                body[at] = *byte;
            }
        }
        let lines = body.split(|b| *b == b'\n').filter(|l| !l.trim_ascii().is_empty()).count();
        let decoded = decode(&body);
        prop_assert!(decoded.rows.num_rows() + decoded.bad.len() <= lines);
        let array = [b"[", body.as_slice()].concat();
        let _ = Format::new(FormatKind::JsonArray).decode(&schema(), None, &[0], &array);
        let csv = FormatKind::Csv(tidemill_connect::CsvOptions { header: false, ..Default::default() });
        let _ = Format::new(csv).decode(&schema(), None, &[0], &body);
        let _ = Format::new(FormatKind::PgText(Default::default())).decode(&schema(), None, &[0], &body);
        let _ = Format::new(FormatKind::Arrow).decode(&schema(), None, &[0], &body);
    }

    #[test]
    fn text_formats_come_back(rows in rows()) {
        let rows = decode(plain(&rows).as_bytes()).rows;
        // Structs have no text of their own that could be read back.
        let kept = [0, 1, 2, 3, 4, 5, 6, 8];
        let rows = rows.project(&kept).expect("valid");
        let schema: SchemaRef = rows.schema();
        let csv = tidemill_connect::CsvOptions { header: false, ..Default::default() };
        let copy = tidemill_connect::PgTextOptions::default();
        let (mut as_csv, mut as_copy) = (String::new(), String::new());
        for row in 0..rows.num_rows() {
            tidemill_connect::csv_row(&rows, row, &csv, &mut as_csv);
            tidemill_connect::copy_row(&rows, row, &copy, &mut as_copy);
        }
        for (kind, body) in [(FormatKind::Csv(csv), as_csv), (FormatKind::PgText(copy), as_copy)] {
            let decoded = Format::new(kind).decode(&schema, None, &[0], body.as_bytes()).expect("decodes");
            prop_assert_eq!(&decoded.bad, &[]);
            prop_assert_eq!(&printed(&decoded.rows), &printed(&rows));
        }
    }
}
