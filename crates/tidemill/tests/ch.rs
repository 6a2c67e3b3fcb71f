//! The 22 queries of the CH-benCHmark as views over a tiny set of TPC-C's tables while its transactions run: each equal
//! to its query as a batch after the load and again and again, none recomputed, on one worker and on several.

use std::process::Command;

use serde_json::Value;

fn bench(arguments: &[&str]) -> (Vec<Value>, String) {
    let scale = ["--warehouses", "2", "--items", "60", "--customers", "10", "--json"];
    let output = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["bench", "ch"])
        .args(scale)
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let said = serde_json::Deserializer::from_slice(&output.stdout).into_iter().map(Result::unwrap).collect();
    (said, text.into())
}

fn views_equal_their_queries(workers: &str) {
    let (said, text) = bench(&["--transactions", "120", "--workers", workers, "--check"]);
    assert_eq!(said.len(), 22, "{text}");
    for view in &said {
        assert_eq!((&view["wrong"], &view["recomputations"]), (&0.into(), &0.into()), "{view}");
        assert!(view["compared"].as_u64() >= Some(5), "{view}");
        // An empty view is easily right.
        assert!(view["with_rows"].as_u64() > Some(0), "{view}");
    }
}

#[test]
fn on_one_worker() {
    views_equal_their_queries("1");
}

#[test]
fn on_three_workers() {
    views_equal_their_queries("3");
}

#[test]
fn a_transaction_is_an_epoch() {
    let (said, text) = bench(&["--transactions", "30", "--workers", "1", "--queries", "12,1"]);
    let views: Vec<&str> = said.iter().filter_map(|views| views["views"].as_str()).collect();
    assert_eq!(views, ["none", "q12", "q01", "all"], "{text}");
    for views in &said {
        assert_eq!((&views["epochs"], &views["recomputations"]), (&30.into(), &0.into()), "{views}");
    }
    assert!(said[0]["view_rows"] == 0 && said[3]["view_rows"].as_u64() > said[1]["view_rows"].as_u64(), "{said:?}");
}
