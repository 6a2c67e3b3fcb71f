//! `+ - * / %` between numbers.
//!
//! - Integers: the larger of both types; an answer that does not fit it is an error.
//! - Decimals: a sum, a difference and a product are exact; a product of very many digits after the point is
//!   rounded to 20. A quotient has 16 digits after the point, or as many as its operands if these have more,
//!   the last one rounded half away from zero. (PostgreSQL's has 16 significant ones at least.)
//! - Floats, or a float and another number: as floats; a division by zero is an error.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, Datum, Decimal128Array};
use arrow::compute::kernels::{arity, numeric};
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, i256};
use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, Operator, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use tidemill_delta::one_zero;

use crate::provider::external;
use crate::sql_type::type_name;
use crate::{SqlError, state};

/// All digits that 128 bits hold.
const PRECISION: u8 = 38;
/// Digits after the point that a quotient has at least.
pub(super) const QUOTIENT_SCALE: i8 = 16;
/// Digits after the point that a product has at most, unless one of its factors has more.
const PRODUCT_SCALE: i8 = 20;

/// Which operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sign {
    /// `+`
    Plus,
    /// `-`
    Minus,
    /// `*`
    Times,
    /// `/`
    Divide,
    /// `%`
    Modulo,
}

impl Sign {
    pub(super) const ALL: [Sign; 5] = [Sign::Plus, Sign::Minus, Sign::Times, Sign::Divide, Sign::Modulo];

    /// The operation that an operator of DataFusion's is.
    pub(super) fn of(operator: Operator) -> Option<Sign> {
        Some(match operator {
            Operator::Plus => Sign::Plus,
            Operator::Minus => Sign::Minus,
            Operator::Multiply => Sign::Times,
            Operator::Divide => Sign::Divide,
            Operator::Modulo => Sign::Modulo,
            _ => return None,
        })
    }

    fn text(self) -> &'static str {
        match self {
            Sign::Plus => "+",
            Sign::Minus => "-",
            Sign::Times => "*",
            Sign::Divide => "/",
            Sign::Modulo => "%",
        }
    }
}

/// An operation as a function; see the module.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Arithmetic {
    sign: Sign,
    signature: Signature,
    aliases: Vec<String>,
}

impl Arithmetic {
    pub(super) fn new(sign: Sign) -> Self {
        let aliases = if sign == Sign::Modulo { vec!["mod".to_owned()] } else { Vec::new() };
        Arithmetic { sign, signature: Signature::user_defined(Volatility::Immutable), aliases }
    }

    /// The operator that it stands for.
    pub(super) fn operator(&self) -> Operator {
        match self.sign {
            Sign::Plus => Operator::Plus,
            Sign::Minus => Operator::Minus,
            Sign::Times => Operator::Multiply,
            Sign::Divide => Operator::Divide,
            Sign::Modulo => Operator::Modulo,
        }
    }
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        self.sign.text()
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [left, right] => common_types(left, right).map(Vec::from).ok_or_else(|| refused(self.sign, types)),
            _ => Err(refused(self.sign, types)),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [left, right] => self.result(left, right).ok_or_else(|| refused(self.sign, types)),
            _ => Err(refused(self.sign, types)),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let result = args.return_field.data_type().clone();
        let [left, right] = args.args.as_slice() else { return Err(refused(self.sign, &[])) };
        if let (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)) = (left, right) {
            let one = self.compute(&left.to_array(1)?, &right.to_array(1)?, &result)?;
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&one, 0)?));
        }
        let datum = |value: &ColumnarValue| -> Result<Arc<dyn Datum>> {
            Ok(match value {
                ColumnarValue::Array(array) => Arc::new(array.clone()),
                ColumnarValue::Scalar(scalar) => Arc::new(scalar.to_scalar()?),
            })
        };
        Ok(ColumnarValue::Array(self.compute(datum(left)?.as_ref(), datum(right)?.as_ref(), &result)?))
    }
}

impl Arithmetic {
    fn result(&self, left: &DataType, right: &DataType) -> Option<DataType> {
        let (DataType::Decimal128(p1, s1), DataType::Decimal128(p2, s2)) = (left, right) else {
            return (left == right).then(|| left.clone());
        };
        let (whole1, whole2) = (i16::from(*p1) - i16::from(*s1), i16::from(*p2) - i16::from(*s2));
        let (precision, scale) = match self.sign {
            Sign::Plus | Sign::Minus => {
                let scale = *s1.max(s2);
                (i16::from(scale) + whole1.max(whole2) + 1, scale)
            }
            Sign::Times => (i16::from(*p1) + i16::from(*p2) + 1, product_scale(*s1, *s2)),
            Sign::Divide => (i16::from(PRECISION), QUOTIENT_SCALE.max(*s1).max(*s2)),
            Sign::Modulo => {
                let scale = *s1.max(s2);
                (i16::from(scale) + whole1.min(whole2), scale)
            }
        };
        let precision = u8::try_from(precision.clamp(1, i16::from(PRECISION))).ok()?;
        Some(DataType::Decimal128(precision, scale))
    }

    fn compute(&self, left: &dyn Datum, right: &dyn Datum, result: &DataType) -> Result<ArrayRef> {
        let computed = match (result, self.sign) {
            (DataType::Float64, Sign::Divide) => divide_floats::<Float64Type>(left, right, f64::is_nan),
            (DataType::Float32, Sign::Divide) => divide_floats::<Float32Type>(left, right, f32::is_nan),
            (DataType::Decimal128(_, scale), Sign::Divide) => with_decimals(left, right, |l, r, s1, s2| {
                quotients(l, r, i32::from(*scale) - i32::from(s1) + i32::from(s2))
            }),
            (DataType::Decimal128(_, scale), Sign::Times) => {
                with_decimals(left, right, |l, r, s1, s2| match u32::try_from(s1 + s2 - scale) {
                    Ok(0) | Err(_) => arity::try_binary(l, r, |a, b| a.mul_checked(b)),
                    Ok(surplus) => arity::try_binary(l, r, |a, b| product(a, b, surplus)),
                })
            }
            (_, Sign::Plus) => numeric::add(left, right),
            (_, Sign::Minus) => numeric::sub(left, right),
            (_, Sign::Times) => numeric::mul(left, right),
            (_, Sign::Divide) => numeric::div(left, right),
            (_, Sign::Modulo) => numeric::rem(left, right),
        };
        let array = computed.map_err(|error| failure(error, result))?;
        match (array.data_type() == result, result) {
            (false, DataType::Decimal128(precision, scale)) => {
                let decimals = array.as_primitive::<Decimal128Type>().clone();
                Ok(Arc::new(decimals.with_precision_and_scale(*precision, *scale)?))
            }
            _ => Ok(one_zero(&array)),
        }
    }
}

fn product_scale(s1: i8, s2: i8) -> i8 {
    s1.saturating_add(s2).min(PRODUCT_SCALE.max(s1).max(s2))
}

/// The types in which two numbers are computed with.
fn common_types(left: &DataType, right: &DataType) -> Option<[DataType; 2]> {
    use DataType::{Decimal128, Float32, Float64, Int16, Int32, Int64, Null};
    let float = |t: &DataType| matches!(t, Float32 | Float64);
    let whole = |t: &DataType| match t {
        DataType::Int8 | DataType::UInt8 | Int16 => Some((Int16, 5)),
        DataType::UInt16 | Int32 => Some((Int32, 10)),
        DataType::UInt32 | Int64 | DataType::UInt64 => Some((Int64, 20)),
        _ => None,
    };
    let size = |t: &DataType| whole(t).map_or(0, |(_, digits)| digits);
    let both = |t: DataType| Some([t.clone(), t]);
    match (left, right) {
        (Null, Null) => both(Int32),
        (Null, other) | (other, Null) => common_types(other, other),
        (Float32, Float32) => both(Float32),
        (l, r) if (float(l) || float(r)) && (super::is_number(l) && super::is_number(r)) => both(Float64),
        (Decimal128(..), Decimal128(..)) => Some([left.clone(), right.clone()]),
        (Decimal128(..), r) => Some([left.clone(), Decimal128(whole(r)?.1, 0)]),
        (l, Decimal128(..)) => Some([Decimal128(whole(l)?.1, 0), right.clone()]),
        (l, r) => both(whole(if size(l) >= size(r) { l } else { r })?.0).filter(|_| size(l) > 0 && size(r) > 0),
    }
}

fn refused(sign: Sign, types: &[DataType]) -> DataFusionError {
    let names: Vec<_> = types.iter().map(type_name).collect();
    let message = format!("operator does not exist: {}", names.join(&format!(" {} ", sign.text())));
    external(SqlError::new(state::UNDEFINED_FUNCTION, message))
}

/// The error as PostgreSQL words it.
fn failure(error: ArrowError, result: &DataType) -> DataFusionError {
    match error {
        ArrowError::ArithmeticOverflow(_) => {
            let message = match result {
                DataType::Decimal128(..) => "value overflows numeric format".to_owned(),
                other => format!("{} out of range", type_name(other)),
            };
            external(SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, message))
        }
        other => DataFusionError::ArrowError(Box::new(other), None),
    }
}

fn divide_floats<T: ArrowPrimitiveType>(
    left: &dyn Datum,
    right: &dyn Datum,
    is_nan: fn(T::Native) -> bool,
) -> std::result::Result<ArrayRef, ArrowError> {
    let divide = |a: T::Native, b: T::Native| match b.is_zero() && !is_nan(a) {
        true => Err(ArrowError::DivideByZero),
        false => Ok(a.div_wrapping(b)),
    };
    let (left, right) = same_length(left, right)?;
    Ok(Arc::new(arity::try_binary::<_, _, _, T>(left.as_primitive::<T>(), right.as_primitive::<T>(), divide)?))
}

type Decimals = std::result::Result<Decimal128Array, ArrowError>;

fn with_decimals(
    left: &dyn Datum,
    right: &dyn Datum,
    compute: impl Fn(&Decimal128Array, &Decimal128Array, i8, i8) -> Decimals,
) -> std::result::Result<ArrayRef, ArrowError> {
    let scale = |datum: &dyn Datum| match datum.get().0.data_type() {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    };
    let (s1, s2) = (scale(left), scale(right));
    let (left, right) = same_length(left, right)?;
    let decimals = compute(left.as_primitive::<Decimal128Type>(), right.as_primitive::<Decimal128Type>(), s1, s2)?;
    Ok(Arc::new(decimals))
}

/// Both as arrays, a single value repeated.
fn same_length(left: &dyn Datum, right: &dyn Datum) -> std::result::Result<(ArrayRef, ArrayRef), ArrowError> {
    let ((left, one_left), (right, one_right)) = (left.get(), right.get());
    let repeated = |array: &dyn Array, one: bool, len: usize| match one && len != array.len() {
        true => arrow::compute::take(array, &arrow::array::UInt32Array::from(vec![0; len]), None),
        false => Ok(arrow::array::make_array(array.to_data())),
    };
    Ok((repeated(left, one_left, right.len())?, repeated(right, one_right, left.len())?))
}

/// `a / b` with `shift` more digits after the point than their difference has, rounded half away from zero.
fn quotients(left: &Decimal128Array, right: &Decimal128Array, shift: i32) -> Decimals {
    let (up, down) = (power(shift), power(-shift));
    arity::try_binary(left, right, |a, b| {
        if b == 0 {
            return Err(ArrowError::DivideByZero);
        }
        match (a.checked_mul(up), b.checked_mul(down)) {
            (Some(a), Some(b)) => rounded(a, b),
            _ => wide_rounded(wide(a).wrapping_mul(wide(up)), wide(b).wrapping_mul(wide(down))),
        }
    })
}

/// A power of ten; 1 for negative exponents.
fn power(exponent: i32) -> i128 {
    u32::try_from(exponent).ok().and_then(|e| 10i128.checked_pow(e)).unwrap_or(1)
}

fn wide(number: i128) -> i256 {
    i256::from_i128(number)
}

fn rounded(a: i128, b: i128) -> std::result::Result<i128, ArrowError> {
    let (quotient, rest) = (a.checked_div(b).ok_or_else(overflow)?, a % b);
    let away = rest.unsigned_abs() >= b.unsigned_abs() - rest.unsigned_abs();
    Ok(if away { quotient + a.signum() * b.signum() } else { quotient })
}

fn wide_rounded(a: i256, b: i256) -> std::result::Result<i128, ArrowError> {
    let (quotient, rest) = (a.wrapping_div(b), a.wrapping_rem(b));
    let (rest, divisor) = (rest.wrapping_abs(), b.wrapping_abs());
    let away = rest >= divisor.wrapping_sub(rest);
    let step = if a.is_negative() == b.is_negative() { i256::ONE } else { i256::MINUS_ONE };
    let quotient = if away { quotient.wrapping_add(step) } else { quotient };
    quotient.to_i128().ok_or_else(overflow)
}

/// `a * b` without its last `surplus` digits, rounded.
fn product(a: i128, b: i128, surplus: u32) -> std::result::Result<i128, ArrowError> {
    let unit = 10i128.checked_pow(surplus).ok_or_else(overflow)?;
    match a.checked_mul(b) {
        Some(product) => rounded(product, unit),
        None => wide_rounded(wide(a).wrapping_mul(wide(b)), wide(unit)),
    }
}

fn overflow() -> ArrowError {
    ArrowError::ArithmeticOverflow("decimal".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimals(values: &[i128], precision: u8, scale: i8) -> ArrayRef {
        let array = Decimal128Array::from(values.to_vec()).with_precision_and_scale(precision, scale);
        Arc::new(array.expect("fits"))
    }

    fn compute(sign: Sign, left: &ArrayRef, right: &ArrayRef) -> Result<(Vec<i128>, DataType)> {
        let function = Arithmetic::new(sign);
        let result = function.return_type(&[left.data_type().clone(), right.data_type().clone()])?;
        let array = function.compute(left, right, &result)?;
        assert_eq!(*array.data_type(), result);
        Ok((array.as_primitive::<Decimal128Type>().values().to_vec(), result))
    }

    #[test]
    fn quotients_are_rounded_half_away_from_zero() {
        let left = decimals(&[200, -200, 1], 5, 2);
        let right = decimals(&[30, 30, 20_000], 6, 1);
        let (values, data_type) = compute(Sign::Divide, &left, &right).expect("quotients");
        assert_eq!(data_type, DataType::Decimal128(38, 16));
        assert_eq!(values, [6_666_666_666_666_667, -6_666_666_666_666_667, 50_000_000_000]);
    }

    #[test]
    fn large_operands_do_not_overflow_on_the_way() {
        let large = 10i128.pow(30);
        let (values, _) = compute(Sign::Divide, &decimals(&[large], 38, 10), &decimals(&[large], 38, 10)).expect("1");
        assert_eq!(values, [10i128.pow(16)]);
        let (values, data_type) =
            compute(Sign::Times, &decimals(&[10i128.pow(25)], 38, 16), &decimals(&[15 * 10i128.pow(9)], 38, 10))
                .expect("a product");
        assert_eq!(data_type, DataType::Decimal128(38, 20));
        assert_eq!(values, [15 * 10i128.pow(28)]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let ints: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![i32::MAX]));
        for sign in [Sign::Plus, Sign::Times] {
            let error = Arithmetic::new(sign).compute(&ints, &ints, &DataType::Int32).expect_err("too large");
            assert_eq!(crate::error_map::sql_error(error).message, "integer out of range");
        }
        let floats: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![0.0]));
        let error = Arithmetic::new(Sign::Divide).compute(&floats, &floats, &DataType::Float64).expect_err("no answer");
        assert_eq!(crate::error_map::sql_error(error).code, state::DIVISION_BY_ZERO);
    }

    #[test]
    fn types_meet_as_in_postgres() {
        use DataType::{Decimal128, Float32, Float64, Int16, Int32, Int64, Null};
        let of = |l: DataType, r: DataType| common_types(&l, &r);
        assert_eq!(of(Int16, Int32), Some([Int32, Int32]));
        assert_eq!(of(DataType::UInt64, Int32), Some([Int64, Int64]));
        assert_eq!(of(Int64, Decimal128(4, 3)), Some([Decimal128(20, 0), Decimal128(4, 3)]));
        assert_eq!(of(Float32, Float32), Some([Float32, Float32]));
        assert_eq!(of(Float32, Int16), Some([Float64, Float64]));
        assert_eq!(of(Null, Int16), Some([Int16, Int16]));
        assert_eq!(of(Int32, DataType::Utf8), None);
    }
}
