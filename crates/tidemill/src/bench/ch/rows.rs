//! Rows that transactions change, and rows as SQL.

use arrow::temporal_conversions::timestamp_s_to_datetime;

/// Rows of a table that take the place of others with their keys.
pub struct Replaced {
    table: &'static str,
    key: &'static [&'static str],
    rest: &'static [&'static str],
}

pub const CUSTOMER: Replaced = Replaced {
    table: "customer",
    key: &["c_w_id", "c_d_id", "c_id"],
    rest: &[
        "c_first",
        "c_middle",
        "c_last",
        "c_street_1",
        "c_street_2",
        "c_city",
        "c_state",
        "c_zip",
        "c_phone",
        "c_since",
        "c_credit",
        "c_credit_lim",
        "c_discount",
        "c_balance",
        "c_ytd_payment",
        "c_payment_cnt",
        "c_delivery_cnt",
        "c_data",
    ],
};

pub const STOCK: Replaced = Replaced {
    table: "stock",
    key: &["s_w_id", "s_i_id"],
    rest: &[
        "s_quantity",
        "s_ytd",
        "s_order_cnt",
        "s_remote_cnt",
        "s_dist_01",
        "s_dist_02",
        "s_dist_03",
        "s_dist_04",
        "s_dist_05",
        "s_dist_06",
        "s_dist_07",
        "s_dist_08",
        "s_dist_09",
        "s_dist_10",
        "s_data",
    ],
};

pub const ORDERS: Replaced = Replaced {
    table: "orders",
    key: &["o_w_id", "o_d_id", "o_id"],
    rest: &["o_c_id", "o_entry_d", "o_carrier_id", "o_ol_cnt", "o_all_local"],
};

pub const ORDER_LINE: Replaced = Replaced {
    table: "order_line",
    key: &["ol_w_id", "ol_d_id", "ol_o_id", "ol_number"],
    rest: &["ol_i_id", "ol_supply_w_id", "ol_delivery_d", "ol_quantity", "ol_amount", "ol_dist_info"],
};

impl Replaced {
    /// The statement that puts rows in the others' places.
    pub fn replace(&self, rows: &[String]) -> String {
        let set: Vec<String> = self.rest.iter().map(|column| format!("{column} = excluded.{column}")).collect();
        let (key, set) = (self.key.join(", "), set.join(", "));
        format!("{} ON CONFLICT ({key}) DO UPDATE SET {set}", insert(self.table, rows))
    }
}

/// The statement that puts rows into a table.
pub fn insert(table: &str, rows: &[String]) -> String {
    let rows: Vec<String> = rows.iter().map(|row| format!("({row})")).collect();
    format!("INSERT INTO {table} VALUES {}", rows.join(", "))
}

/// An amount from its cents.
pub fn money(cents: i64) -> String {
    let (sign, cents) = (if cents < 0 { "-" } else { "" }, cents.unsigned_abs());
    format!("{sign}{}.{:02}", cents / 100, cents % 100)
}

/// A time from its seconds since 1970.
pub fn time(seconds: i64) -> String {
    timestamp_s_to_datetime(seconds).map_or_else(|| "NULL".into(), |time| format!("'{time}'"))
}

fn or_null<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "NULL".into(), text)
}

/// A customer: what stays as text of SQL, and what changes.
pub struct Customer {
    /// The columns up to the discount.
    pub fixed: String,
    pub bad_credit: bool,
    pub balance: i64,
    pub paid: i64,
    pub payments: u32,
    pub deliveries: u32,
    pub data: String,
}

impl Customer {
    pub fn row(&self) -> String {
        let (balance, paid) = (money(self.balance), money(self.paid));
        let Customer { fixed, payments, deliveries, data, .. } = self;
        format!("{fixed}, {balance}, {paid}, {payments}, {deliveries}, '{data}'")
    }
}

/// What a warehouse has of an item.
pub struct Stock {
    pub warehouse: u32,
    pub item: u32,
    pub quantity: u32,
    pub sold: u32,
    pub orders: u32,
    pub remote: u32,
    /// What is printed on order lines, by district.
    pub districts: [String; 10],
    pub data: String,
}

impl Stock {
    pub fn row(&self) -> String {
        let Stock { warehouse, item, quantity, sold, orders, remote, districts, data } = self;
        let districts = districts.join("', '");
        format!("{warehouse}, {item}, {quantity}, {sold}, {orders}, {remote}, '{districts}', '{data}'")
    }
}

/// An order with its lines.
pub struct Order {
    pub warehouse: u32,
    pub district: u32,
    pub number: u32,
    pub customer: u32,
    pub entered: i64,
    pub carrier: Option<u32>,
    pub lines: Vec<Line>,
}

/// A line of an order.
pub struct Line {
    pub item: u32,
    pub supplied_by: u32,
    pub delivered: Option<i64>,
    pub quantity: u32,
    pub amount: i64,
    pub info: String,
}

impl Order {
    pub fn key(&self) -> String {
        format!("{}, {}, {}", self.warehouse, self.district, self.number)
    }

    pub fn row(&self) -> String {
        let all_local = u32::from(self.lines.iter().all(|line| line.supplied_by == self.warehouse));
        let (entered, carrier) = (time(self.entered), or_null(self.carrier, |carrier| carrier.to_string()));
        format!("{}, {}, {entered}, {carrier}, {}, {all_local}", self.key(), self.customer, self.lines.len())
    }

    pub fn line_rows(&self) -> Vec<String> {
        let key = self.key();
        let row = |(number, line): (usize, &Line)| {
            let (delivered, amount) = (or_null(line.delivered, time), money(line.amount));
            let Line { item, supplied_by, quantity, info, .. } = line;
            format!("{key}, {}, {item}, {supplied_by}, {delivered}, {quantity}, {amount}, '{info}'", number + 1)
        };
        self.lines.iter().enumerate().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_times_are_text() {
        assert_eq!([money(-5), money(123_456), money(0)], ["-0.05", "1234.56", "0.00"]);
        assert_eq!(time(1_167_609_600), "'2007-01-01 00:00:00'");
    }

    #[test]
    fn all_columns_are_replaced() {
        let tables = crate::bench::ch::TABLES;
        for Replaced { table, key, rest } in [CUSTOMER, STOCK, ORDERS, ORDER_LINE] {
            let (_, columns) = tables.split_once(&format!("CREATE TABLE {table} (")).unwrap();
            let columns = columns.split_once("PRIMARY KEY").unwrap().0.replace(['(', ')', '\n'], " ");
            let named: Vec<&str> = columns.split(", ").filter_map(|column| column.split_whitespace().next()).collect();
            let named: Vec<&str> = named.into_iter().filter(|name| name.contains('_')).collect();
            assert_eq!(named, [key, rest].concat(), "{table}");
        }
    }
}
