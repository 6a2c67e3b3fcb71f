//! The Nexmark queries and the answers that they must give.

/// A query.
#[derive(Clone, Copy)]
pub struct Query {
    /// `q0`, `q1`, ...
    pub name: &'static str,
    /// One `SELECT`.
    pub sql: &'static str,
    /// The answer over the first 1,000,000 events of seed 42.
    pub expected: Expected,
}

/// What the answer must be.
#[derive(Clone, Copy)]
pub struct Expected {
    /// How many rows.
    pub rows: u64,
    /// The SHA-256 of the sorted answer.
    pub sha256: &'static str,
    /// The columns that it is over; empty: all. Ties leave the others open.
    pub stable: &'static [&'static str],
}

/// For how many events the expected answers hold.
pub const EXPECTED_EVENTS: u64 = 1_000_000;

/// Sources and plain views, with `${SOURCE}` and `${SIDE}` for the sources' `WITH` clauses.
pub const SCHEMA: &str = include_str!("../../../../bench/nexmark/schema.sql");

macro_rules! queries {
    ($($number:literal $rows:literal $sha256:literal [$($stable:literal)*])*) => {
        /// All queries.
        pub const QUERIES: &[Query] = &[$(Query {
            name: concat!("q", $number),
            sql: include_str!(concat!("../../../../bench/nexmark/q", $number, ".sql")),
            expected: Expected { rows: $rows, sha256: $sha256, stable: &[$($stable),*] },
        }),*];
    };
}

queries! {
    0 920_000 "0afb4b552d582c29a0643a6b012adb75a1314c06ab61f1a4ce419903def48411" []
    1 920_000 "b6edc76a2c2535046abf14bf650e06f8c544f9bb208faa5f56fcb149fc23233e" []
    2 6_816 "ac09d865ae3d0ca06bb6448b9e59062a01244dce104e28d5e2b1fc971ebdfc5d" []
    3 6_169 "4e26d3e503c49662cd46f39d819b7b243f4fdf16b0c10522110eaeb61c7fa544" []
    4 5 "2d27d7470b4ab4080352667e1e5811985212e18ee50e346f03c0b202dbb43379" []
    5 54 "5836e501054968885c3f563f9b924b8fddccf5863b36642bda78298b1846257c" []
    6 55_935 "7cc7b417d6003c1afd31c0143b355308ae4da71ef92942f20b9e0bbba5ce0a4a" []
    7 10 "a966492b5850f9136006628c4fe17da682b3a02d4eb55e76f322cb61e8327ce6" []
    8 8_556 "060bc22ce6899e662dae330b0ba825f77210e2d9197c774356bdb118b0e07072" []
    9 55_935 "c57bdd1cf428d4864aae89e90e37612cf3b2ad71e1d0124d0208d956b2abab7d" []
    10 920_000 "fb4418dd3e03a308abf6c7466fe76aa9a551a9821b1ea0370b0b6989ec8a812f" []
    11 19_920 "a5e1e968c954bc5c6e9aaaf16edd07bbc438ba3efc82e09ecfaba144ee5d61fe" []
    12 27_421 "4fcf8ea771c212c4b93b299a945e193da6a244678cba6fbe41f0fcb48912033b" []
    13 920_000 "71330dc92f11322f31faf9407cbd7c02224fc185547ae84776dbaaee4064f480" []
    14 259_960 "6c60e26827f80bcdfcc5b255c59f70ebc15b7a477c6a1f46215147c54f8a3922" []
    15 1 "0a89d91e22f16ec16a7df2d4347e7c3e93d1c1f6a0575311f415f6da7622074c" []
    16 10_004 "80b1047cd19b98729320c9413b374f6c770a6d15f99dd06c935f9604ab2b1c8e" []
    17 59_958 "413ddc9825802c3fba396cda870b7bada32b549e0a1dcfb7221ee2829784d402" []
    18 293_037 "15e362824cf13db2863c18088af20dbb7931be051dc6c96db97332a732e02e04" ["auction" "bidder" "dateTime"]
    19 441_302 "c702b5419bcb61f8080aa9af31143431ae72973078d021d31217d52db238e3c7" ["auction" "price" "rank_number"]
    20 187_523 "1d79d385d14e66df302042da8aa77c33123acc14305b4f9536625ff2cbc7b597" []
    21 872_904 "dfd1752e7158125a40a3b916e315cfb55a87a0dada543cfd8486cc82e5a6864f" []
    22 920_000 "6c6ed4247746818fe4442303e72249b65f2f2c3d97ca702c1ff0488a77663498" []
    23 1_235_454 "c86eda350ba09e20cd4875f8f573ca78bfb01e9ee70490b4355be95bfe44c7b0" []
}

/// The queries with these names (`q1,q5`); all of them for none.
pub fn named(names: &[String]) -> Result<Vec<Query>, String> {
    if names.is_empty() {
        return Ok(QUERIES.to_vec());
    }
    let find = |name: &String| QUERIES.iter().find(|q| q.name == name).copied();
    names.iter().map(|name| find(name).ok_or_else(|| format!("error: there is no Nexmark query '{name}'"))).collect()
}
