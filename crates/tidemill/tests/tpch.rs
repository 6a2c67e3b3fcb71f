//! The 22 queries of TPC-H as views over a tiny set of tables, loaded in slices and then changed: each equal to its
//! query as a batch whenever the load stops and after each change, and none of them recomputed.

use std::process::Command;

use serde_json::Value;

#[test]
fn views_equal_their_queries() {
    let output = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["bench", "tpch", "--scale", "0.003", "--workers", "2", "--check", "--json"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let said: Vec<Value> =
        serde_json::Deserializer::from_slice(&output.stdout).into_iter().map(Result::unwrap).collect();
    assert_eq!(said.len(), 22, "{text}");
    for view in &said {
        assert_eq!((&view["wrong"], &view["recomputations"]), (&0.into(), &0.into()), "{view}");
        assert!(view["compared"].as_u64() >= Some(20), "{view}");
        // An empty view is easily right; these two have no rows at so small a scale (at 0.01 all have some).
        let empty = [7, 11].iter().any(|number| view["query"] == *number);
        assert!(empty || view["with_rows"].as_u64() > Some(0), "{view}");
    }
}
