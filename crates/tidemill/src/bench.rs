//! `tidemill bench`: measurements that users can repeat.

mod answer;
mod ch;
mod change;
mod checked;
mod figures;
mod http;
mod latency;
mod nexmark;
mod process;
mod queries;
mod query;
mod start;
mod suite;
mod timer;
mod tpch;

use std::process::ExitCode;

use clap::Subcommand;

use crate::Failure;

/// Measure.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The Nexmark queries: speed, CPU and memory, or whether the answers are right.
    Nexmark(nexmark::Arguments),
    /// The TPC-H queries as views: load, state and the cost of a change, or whether they are right.
    Tpch(tpch::Arguments),
    /// The CH-benCHmark: TPC-C's transactions with analytical queries as views, or whether they are right.
    Ch(ch::Arguments),
    /// What a changed row costs in a view, by the view's size.
    Change(change::Arguments),
    /// From an HTTP request with one row to the change of a windowed view at a subscriber.
    Latency(latency::Arguments),
    /// Time to start, memory when idle, and what a thousand views cost.
    Start(start::Arguments),
    /// One Nexmark query; `nexmark` starts this for each, so that their memory does not mix.
    #[command(hide = true)]
    NexmarkQuery(query::Arguments),
}

/// Measures.
pub fn bench(arguments: Arguments) -> Result<ExitCode, Failure> {
    match arguments.what {
        What::Nexmark(arguments) => nexmark::nexmark(&arguments),
        What::Tpch(arguments) => tpch::tpch(&arguments),
        What::Ch(arguments) => ch::ch(&arguments),
        What::Change(arguments) => change::change(&arguments),
        What::Latency(arguments) => latency::latency(&arguments),
        What::Start(arguments) => start::start(&arguments),
        What::NexmarkQuery(arguments) => query::query(&arguments),
    }
}
