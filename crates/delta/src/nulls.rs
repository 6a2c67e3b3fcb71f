//! What lies under NULLs.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray, downcast_primitive_array};

/// Columns with zeros under their NULLs. Those decoded from rows have the least value of their type there,
/// with which arithmetic that computes before it looks at the NULLs overflows.
pub fn zero_nulls(mut columns: Vec<ArrayRef>) -> Vec<ArrayRef> {
    for column in columns.iter_mut().filter(|column| column.null_count() > 0) {
        let array = column.as_ref();
        let zeroed: Option<ArrayRef> = downcast_primitive_array!(
            array => Some(Arc::new(zeroed(array))),
            _ => None
        );
        *column = zeroed.unwrap_or_else(|| column.clone());
    }
    columns
}

fn zeroed<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>) -> PrimitiveArray<T> {
    let values = array.iter().map(Option::unwrap_or_default).collect();
    PrimitiveArray::new(values, array.nulls().cloned()).with_data_type(array.data_type().clone())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::buffer::NullBuffer;

    use super::*;

    #[test]
    fn nulls_hide_zeros() {
        let nulls = NullBuffer::from(vec![true, false]);
        let numbers: ArrayRef = Arc::new(Int64Array::new(vec![7, i64::MIN].into(), Some(nulls)));
        let texts: ArrayRef = Arc::new(StringArray::from(vec![None, Some("a")]));
        let columns = zero_nulls(vec![numbers.clone(), texts.clone()]);
        assert_eq!(columns, [numbers, texts]);
        let numbers: &Int64Array = columns[0].as_any().downcast_ref().expect("of the same type");
        assert_eq!(&numbers.values()[..], [7, 0]);
    }
}
