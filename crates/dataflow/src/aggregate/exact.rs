//! Exact sums as bytes: 1 if the counts of infinities and NaNs follow, else 0; these counts; the parts. All numbers
//! are 8 bytes, little-endian, so that a sum comes back as the very same bits.

use arrow::array::{ArrayRef, BinaryArray};
use tidemill_plan::ExactSum;

use crate::OperatorError;
use crate::saved::{binaries, wrong};

/// A value per sum.
pub(super) fn save<'a>(sums: impl Iterator<Item = &'a ExactSum>) -> BinaryArray {
    let mut bytes = Vec::new();
    let values = sums.map(|sum| {
        bytes.clear();
        bytes.push(u8::from(sum.is_special()));
        if sum.is_special() {
            bytes.extend(sum.specials().into_iter().flat_map(i64::to_le_bytes));
        }
        bytes.extend(sum.parts().iter().flat_map(|part| part.to_le_bytes()));
        bytes.clone()
    });
    BinaryArray::from_iter_values(values)
}

/// The sums in a column.
pub(super) fn load(
    columns: &[ArrayRef],
    at: usize,
) -> Result<impl Iterator<Item = Result<ExactSum, OperatorError>>, OperatorError> {
    Ok(binaries(columns, at)?.iter().map(|bytes| bytes.and_then(decode).ok_or_else(|| wrong("a sum is damaged"))))
}

fn decode(bytes: &[u8]) -> Option<ExactSum> {
    let (special, numbers) = bytes.split_first()?;
    let (numbers, []) = numbers.as_chunks::<8>() else { return None };
    let (specials, parts) = match special {
        0 => ([0; 3], numbers),
        1 => {
            let (specials, parts) = numbers.split_first_chunk::<3>()?;
            (specials.map(i64::from_le_bytes), parts)
        }
        _ => return None,
    };
    let parts: Vec<f64> = parts.iter().map(|part| f64::from_le_bytes(*part)).collect();
    Some(ExactSum::from_parts(&parts, specials))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::shared;

    #[test]
    fn sums_come_back_bit_for_bit() {
        let mut sums = vec![ExactSum::default()];
        for values in
            [vec![0.1, 1e300, -7.5, f64::MIN_POSITIVE], vec![f64::NAN, f64::INFINITY, 3.25], vec![f64::MAX; 3]]
        {
            sums.push(ExactSum::default());
            values.iter().for_each(|value| sums.last_mut().unwrap().add(*value, 1));
        }
        let column = shared(save(sums.iter()));
        for (sum, back) in sums.iter().zip(load(&[column], 0).unwrap()) {
            let back = back.unwrap();
            let bits = |sum: &ExactSum| sum.parts().iter().map(|part| part.to_bits()).collect::<Vec<_>>();
            assert_eq!((bits(sum), sum.specials()), (bits(&back), back.specials()));
        }
    }

    #[test]
    fn damage_is_no_sum() {
        assert!(decode(&[]).is_none());
        assert!(decode(&[2]).is_none());
        assert!(decode(&[0, 1, 2]).is_none());
        assert!(decode(&[1, 0, 0, 0, 0, 0, 0, 0, 0]).is_none());
    }
}
