//! The columns of the Nexmark stream: finding those asked for by name, and filling them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray, StructArray};
use arrow::array::{Int32Array, TimestampMicrosecondArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use tidemill_plan::ColumnPath;

use super::model::Kind;
use crate::SourceError;

/// Every value that the model can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    EventType,
    /// The event's time, whatever its kind.
    Time,
    PersonId,
    PersonName,
    PersonEmail,
    PersonCard,
    PersonCity,
    PersonState,
    PersonTime,
    PersonExtra,
    AuctionId,
    AuctionItem,
    AuctionDescription,
    AuctionInitialBid,
    AuctionReserve,
    AuctionTime,
    AuctionExpires,
    AuctionSeller,
    AuctionCategory,
    AuctionExtra,
    BidAuction,
    BidBidder,
    BidPrice,
    BidChannel,
    BidUrl,
    BidTime,
    BidExtra,
}

const COLUMNS: usize = Column::BidExtra as usize + 1;

/// What is made of a column before it is cast to the declared type.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    EventType,
    Number,
    Time,
    Text,
}

impl Column {
    fn shape(self) -> Shape {
        use Column as C;
        match self {
            C::EventType => Shape::EventType,
            C::Time | C::PersonTime | C::AuctionTime | C::AuctionExpires | C::BidTime => Shape::Time,
            C::PersonName | C::PersonEmail | C::PersonCard | C::PersonCity | C::PersonState | C::PersonExtra => {
                Shape::Text
            }
            C::AuctionItem | C::AuctionDescription | C::AuctionExtra => Shape::Text,
            C::BidChannel | C::BidUrl | C::BidExtra => Shape::Text,
            _ => Shape::Number,
        }
    }

    /// In events of which kind it has a value; `None`: in all.
    fn kind(self) -> Option<Kind> {
        match self as usize {
            0..=1 => None,
            i if i < Column::AuctionId as usize => Some(Kind::Person),
            i if i < Column::BidAuction as usize => Some(Kind::Auction),
            _ => Some(Kind::Bid),
        }
    }

    fn data_type(self) -> DataType {
        match self.shape() {
            Shape::EventType => DataType::Int32,
            Shape::Number => DataType::Int64,
            Shape::Time => DataType::Timestamp(TimeUnit::Microsecond, None),
            Shape::Text => DataType::Utf8,
        }
    }
}

/// Names match however they are spelled: `dateTime`, `date_time`, `datetime`.
fn plain(name: &str) -> String {
    name.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect()
}

fn field(kind: Kind, name: &str) -> Option<Column> {
    use Column as C;
    Some(match (kind, plain(name).as_str()) {
        (Kind::Person, "id") => C::PersonId,
        (Kind::Person, "name") => C::PersonName,
        (Kind::Person, "emailaddress" | "email") => C::PersonEmail,
        (Kind::Person, "creditcard") => C::PersonCard,
        (Kind::Person, "city") => C::PersonCity,
        (Kind::Person, "state") => C::PersonState,
        (Kind::Person, "datetime") => C::PersonTime,
        (Kind::Person, "extra") => C::PersonExtra,
        (Kind::Auction, "id") => C::AuctionId,
        (Kind::Auction, "itemname") => C::AuctionItem,
        (Kind::Auction, "description") => C::AuctionDescription,
        (Kind::Auction, "initialbid") => C::AuctionInitialBid,
        (Kind::Auction, "reserve") => C::AuctionReserve,
        (Kind::Auction, "datetime") => C::AuctionTime,
        (Kind::Auction, "expires") => C::AuctionExpires,
        (Kind::Auction, "seller") => C::AuctionSeller,
        (Kind::Auction, "category") => C::AuctionCategory,
        (Kind::Auction, "extra") => C::AuctionExtra,
        (Kind::Bid, "auction") => C::BidAuction,
        (Kind::Bid, "bidder") => C::BidBidder,
        (Kind::Bid, "price") => C::BidPrice,
        (Kind::Bid, "channel") => C::BidChannel,
        (Kind::Bid, "url") => C::BidUrl,
        (Kind::Bid, "datetime") => C::BidTime,
        (Kind::Bid, "extra") => C::BidExtra,
        _ => return None,
    })
}

fn member(name: &str) -> Option<Kind> {
    match plain(name).as_str() {
        "person" => Some(Kind::Person),
        "auction" => Some(Kind::Auction),
        "bid" => Some(Kind::Bid),
        _ => None,
    }
}

/// A column of the batches.
enum Output {
    /// A value; null in events of other kinds.
    Leaf { column: Column, data_type: DataType },
    /// A whole person, auction or bid.
    Member { kind: Kind, fields: Fields, leaves: Vec<Output> },
}

/// The columns that a reader was opened for.
pub(super) struct Projection {
    schema: SchemaRef,
    outputs: Vec<Output>,
    wanted: [bool; COLUMNS],
    flat: bool,
}

impl Projection {
    /// Finds the columns in the relation's schema. With a `stream`, rows are flat and of one kind.
    pub(super) fn new(schema: &SchemaRef, paths: &[ColumnPath], stream: Option<Kind>) -> Result<Self, SourceError> {
        let mut fields = Vec::with_capacity(paths.len());
        let mut outputs = Vec::with_capacity(paths.len());
        for path in paths {
            let declared = schema
                .fields()
                .get(path.column)
                .ok_or_else(|| SourceError(format!("the source has no column number {}", path.column)))?;
            let output = match stream {
                Some(kind) => flat(kind, declared)?,
                None => nested(declared, &path.fields)?,
            };
            let name = std::iter::once(declared.name()).chain(&path.fields).map(String::as_str).collect::<Vec<_>>();
            fields.push(Field::new(name.join("."), output.data_type(), true));
            outputs.push(output);
        }
        let mut wanted = [false; COLUMNS];
        outputs.iter().for_each(|output| output.mark(&mut wanted));
        Ok(Projection { schema: Arc::new(Schema::new(fields)), outputs, wanted, flat: stream.is_some() })
    }

    /// Room for a batch.
    pub(super) fn columns(&self, capacity: usize) -> Columns {
        Columns::new(&self.wanted, capacity)
    }

    /// Whether the kind of each row has to be kept: the rows are of all kinds.
    pub(super) fn needs_kinds(&self) -> bool {
        !self.flat && self.outputs.iter().any(Output::needs_kinds)
    }

    /// Makes a batch of what was filled in. `kinds` holds each row's kind, if they are needed.
    pub(super) fn batch(&self, columns: Columns, rows: usize, kinds: &[u8]) -> Result<RecordBatch, SourceError> {
        let filled = Filled::new(columns, rows, kinds)?;
        let arrays = self.outputs.iter().map(|output| output.array(&filled)).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options).map_err(|e| SourceError(e.to_string()))
    }
}

/// A column of a `stream = '...'` source.
fn flat(kind: Kind, declared: &Field) -> Result<Output, SourceError> {
    let column = field(kind, declared.name()).ok_or_else(|| {
        SourceError(format!("a nexmark {kind:?} has no column \"{}\"", declared.name()).to_lowercase())
    })?;
    leaf(column, declared)
}

/// A column of a source of all events, or a field inside it.
fn nested(declared: &Field, fields: &[String]) -> Result<Output, SourceError> {
    let unknown = |what: &str| SourceError(format!("a nexmark event has no column \"{what}\""));
    let Some(kind) = member(declared.name()) else {
        return match (plain(declared.name()).as_str(), fields) {
            ("eventtype", []) => leaf(Column::EventType, declared),
            ("datetime", []) => leaf(Column::Time, declared),
            _ => Err(unknown(declared.name())),
        };
    };
    let DataType::Struct(members) = declared.data_type() else {
        return Err(SourceError(format!("column \"{}\" of a nexmark source must be a struct", declared.name())));
    };
    match fields {
        [] => {
            let leaves = members.iter().map(|m| in_member(kind, m)).collect::<Result<_, _>>()?;
            Ok(Output::Member { kind, fields: members.clone(), leaves })
        }
        [name] => {
            let declared = members.iter().find(|m| m.name() == name).ok_or_else(|| unknown(name))?;
            in_member(kind, declared)
        }
        [name, ..] => Err(unknown(name)),
    }
}

fn in_member(kind: Kind, declared: &Field) -> Result<Output, SourceError> {
    let column = field(kind, declared.name()).ok_or_else(|| {
        SourceError(format!("a nexmark {kind:?} has no field \"{}\"", declared.name()).to_lowercase())
    })?;
    leaf(column, declared)
}

fn leaf(column: Column, declared: &Field) -> Result<Output, SourceError> {
    let (from, to) = (column.data_type(), declared.data_type());
    if !can_cast_types(&from, to) {
        return Err(SourceError(format!("nexmark column \"{}\" is {from}, which cannot become {to}", declared.name())));
    }
    Ok(Output::Leaf { column, data_type: to.clone() })
}

impl Output {
    fn data_type(&self) -> DataType {
        match self {
            Output::Leaf { data_type, .. } => data_type.clone(),
            Output::Member { fields, .. } => DataType::Struct(fields.clone()),
        }
    }

    fn mark(&self, wanted: &mut [bool; COLUMNS]) {
        match self {
            Output::Leaf { column, .. } => wanted[*column as usize] = true,
            Output::Member { leaves, .. } => leaves.iter().for_each(|leaf| leaf.mark(wanted)),
        }
    }

    fn needs_kinds(&self) -> bool {
        match self {
            Output::Leaf { column, .. } => column.kind().is_some() || *column == Column::EventType,
            Output::Member { .. } => true,
        }
    }

    fn array(&self, filled: &Filled<'_>) -> Result<ArrayRef, SourceError> {
        match self {
            Output::Leaf { column, data_type } => filled.array(*column, data_type),
            Output::Member { kind, fields, leaves } => {
                let arrays = leaves.iter().map(|leaf| leaf.array(filled)).collect::<Result<Vec<_>, _>>()?;
                let nulls = filled.nulls(Some(*kind));
                let made = if fields.is_empty() {
                    Ok(StructArray::new_empty_fields(filled.rows, nulls))
                } else {
                    StructArray::try_new(fields.clone(), arrays, nulls)
                };
                made.map(|a| Arc::new(a) as ArrayRef).map_err(|e| SourceError(e.to_string()))
            }
        }
    }
}

/// Texts that are appended row by row; rows may be left out.
#[derive(Default)]
struct Text {
    /// Where each row so far begins.
    offsets: Vec<i32>,
    bytes: Vec<u8>,
}

impl Text {
    /// Rows left out since the last are empty.
    fn begin(&mut self, row: usize) -> &mut Vec<u8> {
        self.offsets.resize(row + 1, self.bytes.len() as i32);
        &mut self.bytes
    }
}

enum Slot {
    Unwanted,
    Numbers(Vec<i64>),
    Text(Text),
}

/// A batch that is being filled.
pub(super) struct Columns {
    slots: [Slot; COLUMNS],
    /// Whether any time is asked for.
    pub(super) wants_time: bool,
}

impl Columns {
    fn new(wanted: &[bool; COLUMNS], capacity: usize) -> Self {
        let mut wants_time = wanted[Column::AuctionExpires as usize];
        let slots = std::array::from_fn(|i| match (wanted[i], ALL[i].shape()) {
            (false, _) | (_, Shape::EventType) => Slot::Unwanted,
            (_, Shape::Text) => Slot::Text(Text { offsets: Vec::with_capacity(capacity + 1), bytes: Vec::new() }),
            (_, shape) => {
                wants_time |= shape == Shape::Time;
                Slot::Numbers(vec![0; capacity])
            }
        });
        Columns { slots, wants_time }
    }

    /// A batch of which nothing is asked for: events go by.
    pub(super) fn nothing() -> Self {
        Columns::new(&[false; COLUMNS], 0)
    }

    #[inline]
    pub(super) fn wants(&self, column: Column) -> bool {
        !matches!(self.slots[column as usize], Slot::Unwanted)
    }

    #[inline]
    pub(super) fn number(&mut self, column: Column, row: usize, value: u64) {
        if let Slot::Numbers(values) = &mut self.slots[column as usize] {
            values[row] = value as i64;
        }
    }

    /// A time in milliseconds; kept in microseconds.
    #[inline]
    pub(super) fn time(&mut self, column: Column, row: usize, millis: u64) {
        self.number(column, row, millis * 1000);
    }

    /// Where to append a text, if it is asked for.
    #[inline]
    pub(super) fn text(&mut self, column: Column, row: usize) -> Option<&mut Vec<u8>> {
        match &mut self.slots[column as usize] {
            Slot::Text(text) => Some(text.begin(row)),
            _ => None,
        }
    }

    pub(super) fn string(&mut self, column: Column, row: usize, value: &str) {
        if let Some(text) = self.text(column, row) {
            text.extend_from_slice(value.as_bytes());
        }
    }
}

/// A full batch's values as Arrow arrays.
struct Filled<'a> {
    rows: usize,
    kinds: &'a [u8],
    arrays: [Option<ArrayRef>; COLUMNS],
    nulls: [Option<NullBuffer>; 3],
}

impl<'a> Filled<'a> {
    fn new(columns: Columns, rows: usize, kinds: &'a [u8]) -> Result<Self, SourceError> {
        let nulls = std::array::from_fn(|kind| {
            let valid = || BooleanBuffer::collect_bool(rows, |row| kinds[row] == kind as u8);
            (!kinds.is_empty()).then(|| NullBuffer::new(valid()))
        });
        let mut filled = Filled { rows, kinds, arrays: [const { None }; COLUMNS], nulls };
        for (column, slot) in ALL.into_iter().zip(columns.slots) {
            let nulls = filled.nulls(column.kind());
            filled.arrays[column as usize] = match slot {
                Slot::Unwanted => None,
                Slot::Numbers(mut values) => {
                    values.truncate(rows);
                    Some(numbers(column.shape(), values, nulls))
                }
                Slot::Text(mut text) => {
                    text.begin(rows);
                    Some(strings(text, nulls)?)
                }
            };
        }
        Ok(filled)
    }

    fn nulls(&self, kind: Option<Kind>) -> Option<NullBuffer> {
        kind.and_then(|kind| self.nulls[kind as usize].clone())
    }

    fn array(&self, column: Column, data_type: &DataType) -> Result<ArrayRef, SourceError> {
        let array: ArrayRef = match &self.arrays[column as usize] {
            Some(array) => array.clone(),
            // The kinds are the event types.
            None => Arc::new(Int32Array::from_iter_values(self.kinds.iter().map(|kind| i32::from(*kind)))),
        };
        if array.data_type() == data_type {
            return Ok(array);
        }
        cast(&array, data_type).map_err(|e| SourceError(e.to_string()))
    }
}

fn numbers(shape: Shape, values: Vec<i64>, nulls: Option<NullBuffer>) -> ArrayRef {
    match shape {
        Shape::Time => Arc::new(TimestampMicrosecondArray::new(values.into(), nulls)),
        _ => Arc::new(Int64Array::new(values.into(), nulls)),
    }
}

fn strings(text: Text, nulls: Option<NullBuffer>) -> Result<ArrayRef, SourceError> {
    let offsets = OffsetBuffer::new(ScalarBuffer::from(text.offsets));
    let array = StringArray::try_new(offsets, Buffer::from(text.bytes), nulls);
    array.map(|a| Arc::new(a) as ArrayRef).map_err(|e| SourceError(e.to_string()))
}

const ALL: [Column; COLUMNS] = [
    Column::EventType,
    Column::Time,
    Column::PersonId,
    Column::PersonName,
    Column::PersonEmail,
    Column::PersonCard,
    Column::PersonCity,
    Column::PersonState,
    Column::PersonTime,
    Column::PersonExtra,
    Column::AuctionId,
    Column::AuctionItem,
    Column::AuctionDescription,
    Column::AuctionInitialBid,
    Column::AuctionReserve,
    Column::AuctionTime,
    Column::AuctionExpires,
    Column::AuctionSeller,
    Column::AuctionCategory,
    Column::AuctionExtra,
    Column::BidAuction,
    Column::BidBidder,
    Column::BidPrice,
    Column::BidChannel,
    Column::BidUrl,
    Column::BidTime,
    Column::BidExtra,
];
