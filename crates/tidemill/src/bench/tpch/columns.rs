//! The rows that the generator makes, as columns.

use std::fmt::{Display, Write};
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringBuilder};
use arrow::error::ArrowError;
use tpchgen::dates::TPCHDate;
use tpchgen::decimal::TPCHDecimal;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};

fn whole<'a>(values: impl Iterator<Item = &'a i64>) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(Int64Array::from_iter_values(values.copied())))
}

fn small<'a>(values: impl Iterator<Item = &'a i32>) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(Int32Array::from_iter_values(values.copied())))
}

/// Amounts with two places.
fn money<'a>(values: impl Iterator<Item = &'a TPCHDecimal>) -> Result<ArrayRef, ArrowError> {
    hundredths(values.map(|amount| amount.into_inner()))
}

fn hundredths(values: impl Iterator<Item = i64>) -> Result<ArrayRef, ArrowError> {
    let values = Decimal128Array::from_iter_values(values.map(i128::from));
    Ok(Arc::new(values.with_precision_and_scale(15, 2)?))
}

/// Whole numbers of pieces, kept as amounts.
fn quantities<'a>(values: impl Iterator<Item = &'a i64>) -> Result<ArrayRef, ArrowError> {
    hundredths(values.map(|pieces| pieces * 100))
}

fn dates<'a>(values: impl Iterator<Item = &'a TPCHDate>) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(Date32Array::from_iter_values(values.map(TPCHDate::to_unix_epoch))))
}

fn text(values: impl Iterator<Item: Display>) -> Result<ArrayRef, ArrowError> {
    let mut texts = StringBuilder::new();
    for value in values {
        write!(texts, "{value}").map_err(|error| ArrowError::ComputeError(error.to_string()))?;
        texts.append_value("");
    }
    Ok(Arc::new(texts.finish()))
}

/// A table's generator, and for each column its name and kind.
macro_rules! table {
    ($name:ident $generator:ident $($column:ident $kind:ident)*) => {
        pub fn $name(scale: f64) -> Result<RecordBatch, ArrowError> {
            let rows: Vec<_> = $generator::new(scale, 1, 1).into_iter().collect();
            RecordBatch::try_from_iter([$((stringify!($column), $kind(rows.iter().map(|row| &row.$column))?)),*])
        }
    };
}

table! { region RegionGenerator
    r_regionkey whole r_name text r_comment text
}

table! { nation NationGenerator
    n_nationkey whole n_name text n_regionkey whole n_comment text
}

table! { supplier SupplierGenerator
    s_suppkey whole s_name text s_address text s_nationkey whole s_phone text s_acctbal money s_comment text
}

table! { customer CustomerGenerator
    c_custkey whole c_name text c_address text c_nationkey whole c_phone text c_acctbal money c_mktsegment text
    c_comment text
}

table! { part PartGenerator
    p_partkey whole p_name text p_mfgr text p_brand text p_type text p_size small p_container text
    p_retailprice money p_comment text
}

table! { partsupp PartSuppGenerator
    ps_partkey whole ps_suppkey whole ps_availqty small ps_supplycost money ps_comment text
}

table! { orders OrderGenerator
    o_orderkey whole o_custkey whole o_orderstatus text o_totalprice money o_orderdate dates
    o_orderpriority text o_clerk text o_shippriority small o_comment text
}

table! { lineitem LineItemGenerator
    l_orderkey whole l_partkey whole l_suppkey whole l_linenumber small l_quantity quantities
    l_extendedprice money l_discount money l_tax money l_returnflag text l_linestatus text l_shipdate dates
    l_commitdate dates l_receiptdate dates l_shipinstruct text l_shipmode text l_comment text
}
