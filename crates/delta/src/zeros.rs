//! One zero.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};

/// The column with -0 as 0. They are equal, but their bits and their order differ: a row that came with one and goes with the
/// other would not be found where rows are looked for by order, so only one of them is ever kept.
pub fn one_zero(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => of::<Float64Type>(column, |v| v == 0.0 && v.is_sign_negative(), 0.0),
        DataType::Float32 => of::<Float32Type>(column, |v| v == 0.0 && v.is_sign_negative(), 0.0),
        _ => column.clone(),
    }
}

fn of<T: ArrowPrimitiveType>(column: &ArrayRef, negative: impl Fn(T::Native) -> bool, zero: T::Native) -> ArrayRef {
    let array = column.as_primitive::<T>();
    // Hardly ever is there one.
    if !array.values().iter().fold(false, |any, value| any | negative(*value)) {
        return column.clone();
    }
    let values = array.values().iter().map(|value| if negative(*value) { zero } else { *value }).collect();
    Arc::new(PrimitiveArray::<T>::new(values, array.nulls().cloned()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array};

    use super::*;

    #[test]
    fn only_the_sign_of_zero_goes() {
        let values = [Some(-0.0), None, Some(0.0), Some(-1.5), Some(f64::NAN), Some(f64::NEG_INFINITY)];
        let column: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
        let bits = |column: &ArrayRef| -> Vec<_> {
            column.as_primitive::<Float64Type>().iter().map(|v| v.map(f64::to_bits)).collect()
        };
        let mut expected = bits(&column);
        expected[0] = Some(0);
        assert_eq!(bits(&one_zero(&column)), expected);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![0, -1]));
        assert_eq!(&one_zero(&numbers), &numbers);
    }
}
