//! Every file of `tests/slt` over the Postgres wire.

#[path = "../../engine/tests/slt/play.rs"]
mod play;
#[path = "../../engine/tests/slt/random.rs"]
mod random;
#[path = "../../engine/tests/slt/script.rs"]
mod script;
#[path = "../../engine/tests/slt/ways.rs"]
#[expect(dead_code, reason = "over the wire, files are run as they are written")]
mod ways;
#[path = "../../engine/tests/slt/wire.rs"]
mod wire;

use tidemill_engine::{Config, Engine};
use tidemill_env::Env;
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread")]
async fn over_the_wire() {
    let engine = Engine::start(Config { workers: 2, ..Config::default() }, Env::real()).expect("the engine starts");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let server = tokio::spawn(tidemill_serve::pg::serve(engine.clone(), listener));
    wire::play_all(port).await;
    server.abort();
    engine.shutdown();
}
