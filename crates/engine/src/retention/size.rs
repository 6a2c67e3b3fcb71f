//! How many bytes the values of a row take: numbers and times their width, texts and lists what is in them. NULL takes as much as
//! its type's least value. It is a matter of the row alone, not of how columns are shared or kept.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::compute::kernels::length::length;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;

/// Bytes of each row.
pub(super) fn row_sizes(rows: &RecordBatch) -> Result<Vec<u64>, ArrowError> {
    let mut sizes = vec![0; rows.num_rows()];
    rows.columns().iter().try_for_each(|column| add(column, &mut sizes))?;
    Ok(sizes)
}

/// Adds the bytes of each value.
fn add(column: &ArrayRef, sizes: &mut [u64]) -> Result<(), ArrowError> {
    match column.data_type() {
        DataType::Null => {}
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView => {
            let lengths = cast(&length(column.as_ref())?, &DataType::Int64)?;
            let lengths = lengths.as_primitive::<Int64Type>();
            let each = lengths.iter().map(|length| length.unwrap_or(0).unsigned_abs());
            sizes.iter_mut().zip(each).for_each(|(size, own)| *size += own);
        }
        DataType::Struct(_) => {
            for field in column.as_struct().columns() {
                add(field, sizes)?;
            }
        }
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            let mut of_values = vec![0; list.values().len()];
            add(list.values(), &mut of_values)?;
            for (row, size) in sizes.iter_mut().enumerate() {
                let (from, to) = (list.value_offsets()[row] as usize, list.value_offsets()[row + 1] as usize);
                *size += if list.is_null(row) { 0 } else { of_values[from..to].iter().sum() };
            }
        }
        DataType::Boolean => sizes.iter_mut().for_each(|size| *size += 1),
        fixed => {
            let width = fixed.primitive_width().unwrap_or_else(|| {
                // Of a type that tables do not have, the average.
                column.get_buffer_memory_size() / column.len().max(1)
            });
            sizes.iter_mut().for_each(|size| *size += width as u64);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Int32Array, Int64Array, ListArray, StringArray, StructArray};
    use arrow::datatypes::{Field, Int32Type};

    use super::*;

    #[test]
    fn a_row_is_as_large_as_its_values() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("abc"), None, Some("é")]));
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), Some(2)]),
            Some(vec![]),
            None,
        ]));
        let field = Arc::new(Field::new("x", DataType::Int32, true));
        let pairs: ArrayRef =
            Arc::new(StructArray::from(vec![(field, Arc::new(Int32Array::from(vec![1, 2, 3])) as ArrayRef)]));
        let rows = RecordBatch::try_from_iter([
            ("n", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
            ("b", Arc::new(BooleanArray::from(vec![true, false, true])) as ArrayRef),
            ("t", texts),
            ("l", lists),
            ("s", pairs),
        ])
        .unwrap();
        assert_eq!(row_sizes(&rows).unwrap(), [8 + 1 + 3 + 8 + 4, 8 + 1 + 4, 8 + 1 + 2 + 4]);
        assert_eq!(row_sizes(&rows.slice(1, 2)).unwrap(), [8 + 1 + 4, 8 + 1 + 2 + 4]);
    }
}
