//! What travels on the loop: packets for one worker, gathered in a frame.
//!
//! Between threads a frame is moved as it is. Between processes it is written as little-endian
//! fields and Arrow IPC; a view's plan travels as the statement that made it, which the other
//! process plans for itself.

use std::cell::OnceCell;
use std::io::Write;
use std::sync::{Arc, OnceLock};

use tidemill_delta::{Delta, Micros, decode, encode};
use tidemill_plan::{ColumnPath, Dataflow, NodeId, RelationId};
use timely::Accountable;
use timely::dataflow::channels::ContainerBytes;

use crate::RowError;
use crate::saving::Saved;
use crate::time::Level;

/// A view's dataflow, ready to be built on every worker.
#[derive(Debug)]
pub struct ViewSpec {
    /// The view.
    pub view: RelationId,
    /// What it computes.
    pub dataflow: Dataflow,
    /// For each input of the dataflow: the sources and tables with a watermark that it is made from.
    pub sources: Vec<Vec<RelationId>>,
}

/// Something that the catalog learns, the same in all processes.
#[derive(Debug, Default)]
pub struct Definition {
    /// The definition as text, for other processes.
    pub text: String,
    /// The view's dataflow, if it is a view; made from the text where it is not there yet.
    pub spec: OnceLock<Option<Arc<ViewSpec>>>,
}

/// A change of what runs, at the beginning of an epoch.
#[derive(Clone, Debug)]
pub enum Command {
    /// A table, source or view is defined; a view's operators are built and wait for its history.
    Define(Arc<Definition>),
    /// A view has had all its history: from this epoch on it is live.
    GoLive(RelationId),
    /// A view ends with the epoch before.
    Remove(RelationId),
    /// From now on what comes in is remembered for the next save.
    Record,
    /// The state as of the epochs before, which are all done, is to be told: all of it, or what has changed
    /// since the last time.
    Save {
        /// All of it.
        all: bool,
    },
    /// A view that was just defined goes on where it was when it was saved: its state comes in this epoch, and
    /// it is live from the next one on.
    Restore(RelationId),
}

/// How an epoch begins, for every worker.
#[derive(Clone, Debug, Default)]
pub struct Begin {
    /// What changes.
    pub commands: Vec<Command>,
    /// Watermarks that have moved.
    pub watermarks: Vec<(RelationId, Micros)>,
}

/// One thing for one worker.
#[derive(Clone, Debug)]
pub enum Packet {
    /// The epoch begins.
    Begin(Arc<Begin>),
    /// Rows of a table or source.
    Input {
        /// Which.
        relation: RelationId,
        /// Which of its columns, if not all.
        columns: Option<Arc<[ColumnPath]>>,
        /// The rows.
        delta: Delta,
    },
    /// Rows that a new view's input had before the view began.
    History {
        /// The view.
        view: RelationId,
        /// Which of its inputs.
        input: usize,
        /// The rows, all columns.
        delta: Delta,
    },
    /// Rows on their way to an operator.
    Rows {
        /// The view.
        view: RelationId,
        /// The operator.
        node: NodeId,
        /// Which of its inputs.
        port: usize,
        /// The level at which it runs.
        level: Level,
        /// The rows.
        delta: Delta,
    },
    /// Changes of a view, on their way to the process that serves.
    Output {
        /// The view.
        view: RelationId,
        /// The changes.
        delta: Delta,
    },
    /// Rows of a view without an answer, likewise.
    Errors {
        /// The view.
        view: RelationId,
        /// The errors.
        errors: Vec<RowError>,
    },
    /// A view that cannot go on, likewise.
    Failed {
        /// The view.
        view: RelationId,
        /// Why.
        reason: String,
    },
    /// A part of an operator's state that was saved, for the worker that goes on with it.
    Load {
        /// The view.
        view: RelationId,
        /// The operator.
        node: NodeId,
        /// Which of its inputs or kinds of entries.
        part: usize,
        /// The rows.
        delta: Delta,
    },
    /// A part of an operator's state on its way to the process that saves it.
    Saved(Saved),
}

/// Packets for one worker.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// Which worker.
    pub target: usize,
    /// The packets, in order.
    pub packets: Vec<Packet>,
    encoded: OnceCell<Vec<u8>>,
}

impl Frame {
    /// A frame of packets.
    pub fn new(target: usize, packets: Vec<Packet>) -> Self {
        Frame { target, packets, encoded: OnceCell::new() }
    }

    fn encoded(&self) -> &[u8] {
        self.encoded.get_or_init(|| {
            let mut out = Vec::new();
            put(&mut out, self.target as u64);
            put(&mut out, self.packets.len() as u64);
            self.packets.iter().for_each(|p| put_packet(&mut out, p));
            out
        })
    }
}

impl Accountable for Frame {
    fn record_count(&self) -> i64 {
        1
    }
}

impl ContainerBytes for Frame {
    fn from_bytes(bytes: timely::bytes::arc::Bytes) -> Self {
        let mut reader = Reader { bytes: &bytes };
        let target = reader.take_usize();
        let len = reader.take_usize();
        let packets = (0..len).map(|_| reader.packet()).collect();
        Frame::new(target, packets)
    }

    fn length_in_bytes(&self) -> usize {
        self.encoded().len()
    }

    fn into_bytes<W: Write>(&self, writer: &mut W) {
        writer.write_all(self.encoded()).expect("the exchange buffer takes what it was sized for");
    }
}

fn put(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_delta(out: &mut Vec<u8>, delta: &Delta) {
    let mut bytes = Vec::new();
    encode(delta, &mut bytes).expect("a delta in memory can be encoded");
    put_bytes(out, &bytes);
}

fn put_packet(out: &mut Vec<u8>, packet: &Packet) {
    match packet {
        Packet::Begin(begin) => {
            put(out, 0);
            put(out, begin.commands.len() as u64);
            for command in &begin.commands {
                match command {
                    Command::Define(definition) => {
                        put(out, 0);
                        put_bytes(out, definition.text.as_bytes());
                    }
                    Command::GoLive(view) => [1, *view].into_iter().for_each(|v| put(out, v)),
                    Command::Remove(view) => [2, *view].into_iter().for_each(|v| put(out, v)),
                    Command::Record => put(out, 3),
                    Command::Save { all } => [4, u64::from(*all)].into_iter().for_each(|v| put(out, v)),
                    Command::Restore(view) => [5, *view].into_iter().for_each(|v| put(out, v)),
                }
            }
            put(out, begin.watermarks.len() as u64);
            begin.watermarks.iter().for_each(|(relation, at)| {
                put(out, *relation);
                put(out, *at as u64);
            });
        }
        Packet::Input { relation, columns, delta } => {
            [1, *relation, u64::from(columns.is_some())].into_iter().for_each(|v| put(out, v));
            for path in columns.iter().flat_map(|c| std::iter::once(Err(c.len())).chain(c.iter().map(Ok))) {
                match path {
                    Err(len) => put(out, len as u64),
                    Ok(path) => {
                        put(out, path.column as u64);
                        put(out, path.fields.len() as u64);
                        path.fields.iter().for_each(|f| put_bytes(out, f.as_bytes()));
                    }
                }
            }
            put_delta(out, delta);
        }
        Packet::History { view, input, delta } => {
            [2, *view, *input as u64].into_iter().for_each(|v| put(out, v));
            put_delta(out, delta);
        }
        Packet::Rows { view, node, port, level, delta } => {
            [3, *view, *node as u64, *port as u64, *level].into_iter().for_each(|v| put(out, v));
            put_delta(out, delta);
        }
        Packet::Output { view, delta } => {
            [4, *view].into_iter().for_each(|v| put(out, v));
            put_delta(out, delta);
        }
        Packet::Errors { view, errors } => {
            [5, *view, errors.len() as u64].into_iter().for_each(|v| put(out, v));
            for error in errors {
                put_bytes(out, error.message.as_bytes());
                put_bytes(out, error.row.as_bytes());
                put(out, error.weight as u64);
            }
        }
        Packet::Failed { view, reason } => {
            [6, *view].into_iter().for_each(|v| put(out, v));
            put_bytes(out, reason.as_bytes());
        }
        Packet::Load { view, node, part, delta } => {
            [7, *view, *node as u64, *part as u64].into_iter().for_each(|v| put(out, v));
            put_delta(out, delta);
        }
        // What another process has on disk it saves as rows.
        Packet::Saved(Saved { view, node, part, worker, whole, delta, gone, aside: _, refused: _ }) => {
            [8, *view, *node as u64, *part as u64, *worker as u64, u64::from(*whole), u64::from(gone.is_some())]
                .into_iter()
                .for_each(|v| put(out, v));
            put_delta(out, delta);
            gone.iter().for_each(|gone| put_delta(out, gone));
        }
    }
}

/// Reads what a peer of the same build wrote; anything else is a broken invariant, and panics.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn take_u64(&mut self) -> u64 {
        let (head, rest) = self.bytes.split_at(8);
        self.bytes = rest;
        u64::from_le_bytes(head.try_into().expect("eight bytes"))
    }

    fn take_usize(&mut self) -> usize {
        self.take_u64() as usize
    }

    fn take_bytes(&mut self) -> &[u8] {
        let len = self.take_usize();
        let (head, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        head
    }

    fn take_text(&mut self) -> String {
        String::from_utf8_lossy(self.take_bytes()).into_owned()
    }

    fn take_delta(&mut self) -> Delta {
        decode(self.take_bytes()).expect("a peer's delta can be decoded")
    }

    fn take_command(&mut self) -> Command {
        match self.take_u64() {
            0 => Command::Define(Arc::new(Definition { text: self.take_text(), spec: OnceLock::new() })),
            1 => Command::GoLive(self.take_u64()),
            2 => Command::Remove(self.take_u64()),
            3 => Command::Record,
            4 => Command::Save { all: self.take_u64() != 0 },
            _ => Command::Restore(self.take_u64()),
        }
    }

    fn take_columns(&mut self) -> Option<Arc<[ColumnPath]>> {
        if self.take_u64() == 0 {
            return None;
        }
        let len = self.take_usize();
        let path = |_| {
            let column = self.take_usize();
            let fields = (0..self.take_usize()).map(|_| self.take_text()).collect();
            ColumnPath { column, fields }
        };
        Some((0..len).map(path).collect())
    }

    fn packet(&mut self) -> Packet {
        match self.take_u64() {
            0 => {
                let commands = (0..self.take_usize()).map(|_| self.take_command()).collect();
                let watermarks = (0..self.take_usize()).map(|_| (self.take_u64(), self.take_u64() as Micros)).collect();
                Packet::Begin(Arc::new(Begin { commands, watermarks }))
            }
            1 => Packet::Input { relation: self.take_u64(), columns: self.take_columns(), delta: self.take_delta() },
            2 => Packet::History { view: self.take_u64(), input: self.take_usize(), delta: self.take_delta() },
            3 => Packet::Rows {
                view: self.take_u64(),
                node: self.take_usize(),
                port: self.take_usize(),
                level: self.take_u64(),
                delta: self.take_delta(),
            },
            4 => Packet::Output { view: self.take_u64(), delta: self.take_delta() },
            5 => {
                let (view, len) = (self.take_u64(), self.take_usize());
                let error =
                    |_| RowError { message: self.take_text(), row: self.take_text(), weight: self.take_u64() as i64 };
                Packet::Errors { view, errors: (0..len).map(error).collect() }
            }
            6 => Packet::Failed { view: self.take_u64(), reason: self.take_text() },
            7 => Packet::Load {
                view: self.take_u64(),
                node: self.take_usize(),
                part: self.take_usize(),
                delta: self.take_delta(),
            },
            _ => {
                let (view, node, part, worker) =
                    (self.take_u64(), self.take_usize(), self.take_usize(), self.take_usize());
                let (whole, has_gone) = (self.take_u64() != 0, self.take_u64() != 0);
                let delta = self.take_delta();
                let gone = has_gone.then(|| self.take_delta());
                Packet::Saved(Saved { view, node, part, worker, whole, delta, gone, aside: None, refused: None })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn frames_survive_the_wire() {
        let schema =
            Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]));
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(vec![1, 2])), Arc::new(StringArray::from(vec![Some("x"), None]))];
        let rows = tidemill_delta::batch(schema, columns, 2);
        let delta = Delta::new(rows, Int64Array::from(vec![1, -1]));
        let paths: Arc<[ColumnPath]> = Arc::from(vec![ColumnPath { column: 3, fields: vec!["f".into(), "g".into()] }]);
        let begin = Begin {
            commands: vec![
                Command::Define(Arc::new(Definition { text: "CREATE".into(), spec: OnceLock::new() })),
                Command::GoLive(7),
                Command::Remove(8),
                Command::Record,
                Command::Save { all: true },
                Command::Restore(9),
            ],
            watermarks: vec![(3, -5)],
        };
        let error = RowError { message: "division by zero".into(), row: "a=1".into(), weight: -1 };
        let packets = vec![
            Packet::Begin(Arc::new(begin)),
            Packet::Input { relation: 1, columns: Some(paths), delta: delta.clone() },
            Packet::History { view: 2, input: 1, delta: delta.clone() },
            Packet::Rows { view: 2, node: 3, port: 1, level: 9, delta: delta.clone() },
            Packet::Output { view: 2, delta: delta.clone() },
            Packet::Load { view: 2, node: 1, part: 0, delta: delta.clone() },
            Packet::Saved(Saved {
                view: 2,
                node: 1,
                part: 0,
                worker: 3,
                whole: true,
                gone: Some(delta.clone()),
                delta,
                aside: None,
                refused: None,
            }),
            Packet::Errors { view: 2, errors: vec![error] },
            Packet::Failed { view: 2, reason: "because".into() },
        ];
        let frame = Frame::new(1, packets);
        let mut bytes = Vec::new();
        frame.into_bytes(&mut bytes);
        assert_eq!(bytes.len(), frame.length_in_bytes());
        let back = Frame::from_bytes(timely::bytes::arc::BytesMut::from(bytes).freeze());
        assert_eq!(format!("{:?}", back.packets), format!("{:?}", frame.packets));
    }
}
