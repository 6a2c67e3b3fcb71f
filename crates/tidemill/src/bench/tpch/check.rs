//! All views at once, each compared with its query as a batch while the tables grow and change.

use super::data::{Table, slices};
use super::measure::put;
use super::queries::TABLES;
use crate::Failure;
use crate::bench::checked::{Checked, Verdict};
use crate::bench::suite::Query;

/// How often the load stops to compare.
const STOPS: usize = 10;

/// What is done to the full tables, each followed by a comparison.
const CHANGES: [&str; 10] = [
    "DELETE FROM lineitem WHERE l_orderkey % 7 = 0",
    "UPDATE lineitem SET l_quantity = 51 - l_quantity, l_discount = 0.10 - l_discount, l_tax = 0.01, \
     l_shipdate = l_shipdate + 30, l_suppkey = l_suppkey % 3 + 1 WHERE l_orderkey % 5 = 0",
    "DELETE FROM orders WHERE o_orderkey % 11 = 0",
    "UPDATE orders SET o_custkey = o_custkey % 100 + 1, o_totalprice = o_totalprice + 1, o_orderpriority = '1-URGENT', \
     o_orderdate = o_orderdate - 60 WHERE o_orderkey % 5 = 2",
    "UPDATE customer SET c_acctbal = -c_acctbal, c_nationkey = (c_nationkey + 1) % 25 WHERE c_custkey % 4 = 0; \
     DELETE FROM customer WHERE c_custkey % 13 = 0",
    "UPDATE part SET p_size = 15, p_type = 'ECONOMY ANODIZED STEEL', p_name = 'forest green' WHERE p_partkey % 6 = 0; \
     UPDATE part SET p_brand = 'Brand#23', p_container = 'MED BOX', p_type = 'SMALL BRASS' WHERE p_partkey % 6 = 1; \
     DELETE FROM part WHERE p_partkey % 17 = 0",
    "UPDATE partsupp SET ps_supplycost = 1001 - ps_supplycost, ps_availqty = 9 WHERE ps_partkey % 3 = 0; \
     DELETE FROM partsupp WHERE ps_partkey % 19 = 0",
    "UPDATE supplier SET s_nationkey = (s_nationkey + 2) % 25, s_comment = 'Customer loud Complaints' \
     WHERE s_suppkey % 3 = 0",
    "UPDATE nation SET n_name = 'KENYA', n_regionkey = 3 WHERE n_name = 'GERMANY'; \
     DELETE FROM nation WHERE n_name = 'CHINA'; UPDATE region SET r_comment = 'new'",
    "DELETE FROM lineitem WHERE l_orderkey % 2 = 1; DELETE FROM orders WHERE o_orderkey % 2 = 1",
];

/// Loads, deletes and updates, and compares.
pub async fn check(queries: &[Query], tables: &[Table], workers: usize) -> Result<Vec<Verdict>, Failure> {
    let mut checked = Checked::start(TABLES, queries, workers).await?;
    load(&mut checked, tables).await?;
    for change in CHANGES {
        checked.run(change).await?;
        checked.compare(change).await?;
    }
    // What was deleted or changed comes back: rows with the same keys take the others' places.
    put_slice(&checked, tables, 0, 1).await?;
    checked.compare("the first load once more").await?;
    checked.finish()
}

async fn load(checked: &mut Checked, tables: &[Table]) -> Result<(), Failure> {
    let slices = slices(tables, STOPS);
    for slice in 0..slices {
        put_slice(checked, tables, slice, slices).await?;
        let stops = |slices_done: usize| slices_done * STOPS / slices;
        if stops(slice + 1) > stops(slice) {
            checked.compare(&format!("slice {} of {slices}", slice + 1)).await?;
        }
    }
    Ok(())
}

/// Puts a slice of each table in.
async fn put_slice(checked: &Checked, tables: &[Table], slice: usize, of: usize) -> Result<(), Failure> {
    for table in tables {
        put(&checked.engine, table.name, table.slice(slice, of), true).await?;
    }
    Ok(())
}
