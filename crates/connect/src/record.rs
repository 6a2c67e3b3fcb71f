//! A row, or a struct inside one, under construction: its columns, and which names a JSON object of
//! it is likely to bring in which order.

use std::collections::HashMap;

use arrow::array::ArrayRef;
use arrow::datatypes::Fields;
use arrow::error::ArrowError;

use crate::column::{Column, Fault, Step, ValueOptions};
use crate::source::SourceError;

/// The columns of an object.
pub(crate) struct Record {
    fields: Fields,
    pub(crate) columns: Vec<Column>,
    /// Columns that may not be NULL.
    required: Vec<usize>,
    by_name: HashMap<Box<[u8]>, usize>,
    /// What the last objects looked like.
    pub(crate) expected: Vec<Expected>,
}

/// A member's text from after `{` or `,` up to its value, and which column it is for.
pub(crate) struct Expected {
    literal: Box<[u8]>,
    /// The literal's first sixteen bytes; masked, so that sixteen bytes can be compared whatever
    /// the literal's length is.
    first: [u64; 2],
    masks: [u64; 2],
    /// `None`: nobody wants it.
    pub(crate) column: Option<usize>,
}

impl Expected {
    pub(crate) fn new(literal: &[u8], column: Option<usize>) -> Self {
        let (mut first, mut masks) = ([0; 16], [0; 16]);
        for (i, byte) in literal.iter().take(16).enumerate() {
            (first[i], masks[i]) = (*byte, 0xff);
        }
        Expected { literal: literal.into(), first: words(&first), masks: words(&masks), column }
    }

    /// The literal's length.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.literal.len()
    }

    /// Whether this is the literal's very text.
    pub(crate) fn is(&self, literal: &[u8]) -> bool {
        *self.literal == *literal
    }

    /// Whether the literal is at this place.
    #[inline]
    pub(crate) fn is_at(&self, bytes: &[u8], at: usize) -> bool {
        let rest = bytes.get(at..).unwrap_or(&[]);
        match rest.first_chunk::<16>() {
            Some(head) => {
                let head = words(head);
                let differ = (head[0] & self.masks[0]) ^ self.first[0] | (head[1] & self.masks[1]) ^ self.first[1];
                differ == 0 && (self.literal.len() <= 16 || rest.starts_with(&self.literal))
            }
            None => rest.starts_with(&self.literal),
        }
    }
}

#[inline]
fn words(bytes: &[u8; 16]) -> [u64; 2] {
    let word = |i: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[i..i + 8]);
        u64::from_le_bytes(word)
    };
    [word(0), word(8)]
}

impl Record {
    /// Empty columns for the fields.
    pub(crate) fn new(fields: &Fields, required: Vec<usize>, options: ValueOptions) -> Result<Record, SourceError> {
        let columns = fields.iter().map(|f| Column::new(f, options)).collect::<Result<_, _>>()?;
        let by_name = fields.iter().enumerate().map(|(i, f)| (f.name().as_bytes().into(), i)).collect();
        Ok(Record { fields: fields.clone(), columns, required, by_name, expected: Vec::new() })
    }

    /// The fields.
    pub(crate) fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The name of a column.
    pub(crate) fn name(&self, column: usize) -> &str {
        self.fields[column].name()
    }

    /// The column of a name.
    pub(crate) fn find(&self, name: &[u8]) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Checks that row `row` has all that it needs.
    #[inline]
    pub(crate) fn complete(&self, row: usize) -> Step<()> {
        for column in &self.required {
            // NULLs are only filled in later, so a column as long as the rows has a value here.
            if self.columns[*column].len() != row + 1 {
                return Err(Fault::new("NULL where a value has to be").within(self.name(*column)));
            }
        }
        Ok(())
    }

    /// Undoes everything after the first `rows` rows.
    pub(crate) fn truncate(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|c| c.truncate(rows));
    }

    /// The first `rows` rows' arrays; begins anew.
    pub(crate) fn finish(&mut self, rows: usize) -> Result<Vec<ArrayRef>, ArrowError> {
        self.columns.iter_mut().map(|c| c.finish(rows)).collect()
    }
}
