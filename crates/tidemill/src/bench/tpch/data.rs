//! The rows of TPC-H, generated before anything is measured.

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Int32Type, Int64Type, SchemaRef};
use arrow::error::ArrowError;

use super::columns;

/// Rows of the largest table in one slice of the load.
const ROW_GROUP: usize = 8192;

/// A table with all its rows, in the order of its key.
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// The columns of its primary key, whole numbers all.
    pub key: &'static [usize],
    /// Its rows.
    pub rows: RecordBatch,
}

/// All tables at a scale.
pub fn generate(scale: f64) -> Result<Vec<Table>, ArrowError> {
    let table = |name: &'static str, key: &'static [usize], rows: Result<RecordBatch, ArrowError>| {
        rows.map(|rows| Table { name, key, rows })
    };
    Ok(vec![
        table("region", &[0], columns::region(scale))?,
        table("nation", &[0], columns::nation(scale))?,
        table("supplier", &[0], columns::supplier(scale))?,
        table("customer", &[0], columns::customer(scale))?,
        table("part", &[0], columns::part(scale))?,
        table("partsupp", &[0, 1], columns::partsupp(scale))?,
        table("orders", &[0], columns::orders(scale))?,
        table("lineitem", &[0, 3], columns::lineitem(scale))?,
    ])
}

impl Table {
    /// A slice of the rows, of as many nearly equal ones as there are `of`.
    pub fn slice(&self, slice: usize, of: usize) -> RecordBatch {
        let at = |slice: usize| self.rows.num_rows() * slice / of;
        self.rows.slice(at(slice), at(slice + 1) - at(slice))
    }

    /// The columns' names and types.
    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    /// One row.
    pub fn row(&self, row: usize) -> RecordBatch {
        self.rows.slice(row, 1)
    }

    /// The key of one row with everything else of another one.
    pub fn mixed(&self, key_of: usize, rest_of: usize) -> Result<RecordBatch, ArrowError> {
        let columns = self.rows.columns().iter().enumerate().map(|(i, column)| {
            let row = if self.key.contains(&i) { key_of } else { rest_of };
            take(column, &UInt32Array::from(vec![row as u32]), None)
        });
        RecordBatch::try_new(self.schema(), columns.collect::<Result<_, _>>()?)
    }

    /// The condition that only this row meets.
    pub fn is_row(&self, row: usize) -> String {
        let schema = self.schema();
        let number = |column: &ArrayRef| match column.data_type() {
            DataType::Int32 => i64::from(column.as_primitive::<Int32Type>().value(row)),
            _ => column.as_primitive::<Int64Type>().value(row),
        };
        let parts = self.key.iter().map(|c| format!("{} = {}", schema.field(*c).name(), number(self.rows.column(*c))));
        parts.collect::<Vec<_>>().join(" AND ")
    }
}

/// In how many slices the tables are loaded: row groups of the largest one, and not fewer than `least`.
pub fn slices<'a>(tables: impl IntoIterator<Item = &'a Table>, least: usize) -> usize {
    let largest = tables.into_iter().map(|t| t.rows.num_rows()).max().unwrap_or(0);
    largest.div_ceil(ROW_GROUP).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_all_rows() {
        let tables = generate(0.001).unwrap();
        for table in &tables {
            let rows: usize = (0..7).map(|i| table.slice(i, 7).num_rows()).sum();
            assert_eq!(rows, table.rows.num_rows(), "{}", table.name);
        }
        let orders = &tables[6];
        assert_eq!((orders.name, orders.rows.num_rows()), ("orders", 1500));
        assert_eq!(orders.is_row(0), "o_orderkey = 1");
        let mixed = orders.mixed(0, 5).unwrap();
        assert_eq!(mixed.column(0), &orders.rows.column(0).slice(0, 1));
        assert_eq!(mixed.column(1), &orders.rows.column(1).slice(5, 1));
    }
}
