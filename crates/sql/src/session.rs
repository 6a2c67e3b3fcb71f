//! DataFusion's session: its functions, our window functions and settings.

use std::sync::Arc;

use datafusion::common::config::Dialect;
use datafusion::execution::SessionState;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::optimizer::{Analyzer, AnalyzerRule, Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;

use crate::any_order::AnyOrderBelow;
use crate::bounded::BoundedGrowth;
use crate::casts::Casts;
use crate::cross_join::SafeCrossJoins;
use crate::equijoins::SafeEquijoins;
use crate::exact;
use crate::filters::SafeFilters;
use crate::functions;
use crate::given::BatchPlanner;
use crate::in_value::InAsValue;
use crate::multiset::CountedSetOperations;
use crate::numeric::Numbers;
use crate::operators::Operators;
use crate::outer_types::OuterTypes;
use crate::regexp::RegexpGroups;
use crate::rounding::RoundingCasts;
use crate::subqueries::Subqueries;
use crate::window::WindowPlanner;

/// A session with all functions and our settings, whose queries may all together hold so many bytes.
pub(crate) fn session(memory: usize) -> SessionState {
    let functions = all_functions();
    let mut builder = SessionStateBuilder::new_with_default_features();
    // Before DataFusion's own, which take some of these operators for others.
    let ours: Arc<dyn ExprPlanner> = Arc::new(Operators::new(functions.clone()));
    let planners = std::iter::once(ours).chain(builder.expr_planners().take().unwrap_or_default()).collect();
    let mut state = builder
        .with_config(config())
        .with_runtime_env(runtime(memory))
        .with_relation_planners(vec![Arc::new(WindowPlanner)])
        .with_query_planner(Arc::new(BatchPlanner))
        .with_expr_planners(planners)
        .with_analyzer_rules(analyzer_rules(functions))
        .with_optimizer_rules(optimizer_rules())
        .with_physical_optimizer_rules(physical_optimizer_rules())
        .build();
    register(&mut state);
    state
}

fn runtime(memory: usize) -> Arc<RuntimeEnv> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(memory)))
        // Files that DataFusion wrote by itself would go around the one door to the disk.
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled));
    // Only a folder for files could be refused, and there is none.
    runtime.build_arc().unwrap_or_else(|error| unreachable!("memory alone is no reason to fail: {error}"))
}

/// Registers what comes on top of DataFusion's functions.
fn register(state: &mut SessionState) {
    // Registering into a fresh session fails only for functions that it has already.
    let registered = datafusion_functions_json::register_all(state)
        .and_then(|()| functions::register(state))
        .and_then(|()| exact::register(state));
    if let Err(error) = registered {
        unreachable!("functions register once: {error}");
    }
}

/// All scalar functions, for what refers to them while a session is made.
fn all_functions() -> Vec<Arc<ScalarUDF>> {
    let mut state = SessionStateBuilder::new_with_default_features().build();
    register(&mut state);
    state.scalar_functions().values().cloned().collect()
}

/// DataFusion's rules, which resolve groupings and coerce types, between ours.
fn analyzer_rules(functions: Vec<Arc<ScalarUDF>>) -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![
        Arc::new(Subqueries::new()),
        Arc::new(InAsValue),
        Arc::new(Casts::new(functions)),
        Arc::new(Numbers::new()),
        Arc::new(OuterTypes),
    ];
    rules.extend(Analyzer::new().rules);
    rules.push(Arc::new(RoundingCasts::new()));
    rules.push(Arc::new(RegexpGroups));
    rules.push(Arc::new(CountedSetOperations));
    rules.push(Arc::new(BoundedGrowth));
    rules
}

/// DataFusion's rules, with some made safe.
fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let safe: [Arc<dyn OptimizerRule + Send + Sync>; 3] =
        [Arc::new(SafeCrossJoins::default()), Arc::new(SafeEquijoins::default()), Arc::new(SafeFilters::default())];
    let rules = Optimizer::new().rules.into_iter();
    rules.map(|rule| safe.iter().find(|own| own.name() == rule.name()).cloned().unwrap_or(rule)).collect()
}

/// DataFusion's rules, one of ours before them, without two.
///
/// `FilterPushdown` finds a filter's columns by name in what is below, and takes the wrong one where both sides of a join have one of that
/// name; the logical plan's filters are pushed down already. `SanityCheckPlan` refuses plans that are right: what rules before it
/// knew of the order of rows, such as that there is only one, is not known any more after projections have been moved.
fn physical_optimizer_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let left_out = |name: &str| name.starts_with("FilterPushdown") || name == "SanityCheckPlan";
    let ours: Arc<dyn PhysicalOptimizerRule + Send + Sync> = Arc::new(AnyOrderBelow);
    let others = PhysicalOptimizer::new().rules.into_iter().filter(|rule| !left_out(rule.name()));
    std::iter::once(ours).chain(others).collect()
}

fn config() -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(1).with_create_default_catalog_and_schema(false);
    let options = config.options_mut();
    options.sql_parser.dialect = Dialect::PostgreSQL;
    // Views into shared buffers would pin what they were cut from once they are in state.
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    options.sql_parser.parse_float_as_decimal = true;
    // Makes now() a timestamp with time zone, as in PostgreSQL.
    options.execution.time_zone = Some("UTC".to_owned());
    // An outer join makes columns nullable that the logical plan took for not nullable; that is no reason to fail.
    options.execution.skip_physical_aggregate_schema_check = true;
    // As joins, scalar subqueries have an incremental rule.
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    config
}
