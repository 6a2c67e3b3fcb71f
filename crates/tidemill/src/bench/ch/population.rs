//! The rows before the first transaction. Their shapes are TPC-C's; there are fewer of them, texts are shorter, and where
//! nothing would meet a query's condition in tables so small, letters and amounts are drawn so that something does.

use std::collections::VecDeque;

use super::nations::{REGIONS, nations};
use super::random::{Random, last_name, nation_keys};
use super::rows::{Customer, Line, Order, Stock, insert, money, time};

/// Districts of a warehouse.
pub const DISTRICTS: u32 = 10;
/// When the first order is entered: 1 January 2007.
const BEGIN: i64 = 1_167_609_600;
/// When the transactions begin: 1 January 2011.
const END: i64 = 1_293_840_000;
const DAY: i64 = 86_400;
/// Suppliers are numbered below this.
const SUPPLIERS: u32 = 10_000;
/// Rows of one statement.
const CHUNK: usize = 500;

/// How many rows there are.
#[derive(Clone, Copy)]
pub struct Scale {
    /// Warehouses, with ten districts each.
    pub warehouses: u32,
    /// Items, which each warehouse has.
    pub items: u32,
    /// Customers of each district, and orders that it begins with.
    pub customers: u32,
}

/// What transactions look at.
pub struct Database {
    pub scale: Scale,
    pub random: Random,
    /// The time, in seconds since 1970.
    pub now: i64,
    /// What items cost, in cents.
    pub prices: Vec<i64>,
    pub stock: Vec<Stock>,
    pub customers: Vec<Customer>,
    pub districts: Vec<District>,
}

/// A district at work.
pub struct District {
    /// The number of its next order.
    pub next_order: u32,
    /// Orders that wait for their delivery.
    pub waiting: VecDeque<Order>,
}

/// All rows as statements, and what transactions need to know of them.
pub fn populate(scale: Scale, seed: u64) -> (Database, Vec<String>) {
    let mut database = Database {
        scale,
        random: Random::new(seed),
        now: END,
        prices: Vec::new(),
        stock: Vec::new(),
        customers: Vec::new(),
        districts: Vec::new(),
    };
    let mut load = Load(Vec::new());
    database.world(&mut load);
    database.items(&mut load);
    for warehouse in 1..=scale.warehouses {
        database.warehouse(warehouse, &mut load);
    }
    (database, load.0)
}

/// Statements so far.
struct Load(Vec<String>);

impl Load {
    fn put(&mut self, table: &str, rows: &[String]) {
        self.0.extend(rows.chunks(CHUNK).map(|rows| insert(table, rows)));
    }
}

impl Database {
    /// Where a district is in the list of all.
    pub fn district_at(&self, warehouse: u32, district: u32) -> usize {
        ((warehouse - 1) * DISTRICTS + district - 1) as usize
    }

    /// Where a customer is in the list of all.
    pub fn customer_at(&self, warehouse: u32, district: u32, customer: u32) -> usize {
        self.district_at(warehouse, district) * self.scale.customers as usize + customer as usize - 1
    }

    /// Where an item's stock is in the list of all.
    pub fn stock_at(&self, warehouse: u32, item: u32) -> usize {
        ((warehouse - 1) * self.scale.items + item - 1) as usize
    }

    /// Regions, nations, and the suppliers that stock can have.
    fn world(&mut self, load: &mut Load) {
        let random = &mut self.random;
        let regions = REGIONS.iter().enumerate();
        let regions: Vec<String> =
            regions.map(|(key, name)| format!("{key}, '{name}', '{}'", random.text(20, 40))).collect();
        load.put("region", &regions);
        let nations = nation_keys().zip(nations());
        let nation = |(key, (name, region))| format!("{key}, '{name}', {region}, '{}'", random.text(20, 40));
        load.put("nation", &nations.map(nation).collect::<Vec<String>>());
        let suppliers = (0..SUPPLIERS.min(self.scale.warehouses * self.scale.items + 1)).map(|key| {
            let (address, nation, phone) = (random.text(10, 25), random.nation(), random.digits(15));
            let balance = money(i64::from(random.between(0, 1_099_998)) - 99_999);
            let complaint = if random.one_in(20) { " bad " } else { " " };
            let comment = format!("{}{complaint}{}", random.text(10, 30), random.text(10, 30));
            format!("{key}, 'Supplier#{key:09}', '{address}', {nation}, '{phone}', {balance}, '{comment}'")
        });
        load.put("supplier", &suppliers.collect::<Vec<String>>());
    }

    fn items(&mut self, load: &mut Load) {
        let random = &mut self.random;
        let mut rows = Vec::new();
        for id in 1..=self.scale.items {
            let price = i64::from(random.between(100, 10_000));
            let (image, name, data) = (random.between(1, 10_000), random.text(14, 24), data(random));
            rows.push(format!("{id}, {image}, '{name}', {}, '{data}'", money(price)));
            self.prices.push(price);
        }
        load.put("item", &rows);
    }

    fn warehouse(&mut self, id: u32, load: &mut Load) {
        let (name, address) = (self.random.text(6, 10), self.random.address());
        let tax = self.random.between(0, 2000);
        load.put("warehouse", &[format!("{id}, '{name}', {address}, 0.{tax:04}, 300000.00")]);
        let mut rows = Vec::new();
        for item in 1..=self.scale.items {
            let random = &mut self.random;
            let stock = Stock {
                warehouse: id,
                item,
                quantity: random.between(10, 100),
                sold: 0,
                orders: 0,
                remote: 0,
                districts: std::array::from_fn(|_| random.text(24, 24)),
                data: random.text(26, 50),
            };
            rows.push(stock.row());
            self.stock.push(stock);
        }
        load.put("stock", &rows);
        for district in 1..=DISTRICTS {
            self.district(id, district, load);
        }
    }

    fn district(&mut self, warehouse: u32, id: u32, load: &mut Load) {
        let (name, address) = (self.random.text(6, 10), self.random.address());
        let (tax, next_order) = (self.random.between(0, 2000), self.scale.customers + 1);
        let row = format!("{warehouse}, {id}, '{name}', {address}, 0.{tax:04}, 30000.00, {next_order}");
        load.put("district", &[row]);
        let (mut customers, mut history) = (Vec::new(), Vec::new());
        for number in 1..=self.scale.customers {
            let customer = self.customer(warehouse, id, number);
            customers.push(customer.row());
            let (since, data) = (time(BEGIN), self.random.text(12, 24));
            history.push(format!("{warehouse}, {id}, {number}, {warehouse}, {id}, {since}, 10.00, '{data}'"));
            self.customers.push(customer);
        }
        load.put("customer", &customers);
        load.put("history", &history);
        let orders: Vec<Order> = (1..next_order).map(|number| self.order(warehouse, id, number)).collect();
        load.put("orders", &orders.iter().map(Order::row).collect::<Vec<String>>());
        load.put("order_line", &orders.iter().flat_map(Order::line_rows).collect::<Vec<String>>());
        let waiting: VecDeque<Order> = orders.into_iter().filter(|order| order.carrier.is_none()).collect();
        load.put("new_order", &waiting.iter().map(Order::key).collect::<Vec<String>>());
        self.districts.push(District { next_order, waiting });
    }

    fn customer(&mut self, warehouse: u32, district: u32, number: u32) -> Customer {
        let random = &mut self.random;
        let name = if number <= 1000 { number - 1 } else { random.uneven(255, 0, 999) };
        let (first, last, address) = (random.text(8, 16), last_name(name), random.address());
        let (phone, bad_credit, discount) = (random.digits(16), random.one_in(10), random.between(0, 5000));
        let (credit, since) = (if bad_credit { "BC" } else { "GC" }, time(BEGIN));
        Customer {
            fixed: format!(
                "{warehouse}, {district}, {number}, '{first}', 'OE', '{last}', {address}, '{phone}', {since}, \
                 '{credit}', 50000.00, 0.{discount:04}"
            ),
            bad_credit,
            // All the same in TPC-C, and below zero.
            balance: i64::from(random.between(0, 5_100_000)) - 100_000,
            paid: 1000,
            payments: 1,
            deliveries: 0,
            data: random.text(30, 50),
        }
    }

    /// An order of the past; the last three of ten are not delivered yet.
    fn order(&mut self, warehouse: u32, district: u32, number: u32) -> Order {
        let (count, items) = (self.scale.customers, self.scale.items);
        let stock = &self.stock[self.stock_at(warehouse, 1)..];
        let random = &mut self.random;
        let between = (END - BEGIN) / i64::from(count);
        let entered = BEGIN + between * i64::from(number - 1) + i64::from(random.between(0, between as u32 - 1));
        let delivered = number * 10 <= count * 7;
        let lines = (0..random.between(5, 15)).map(|_| {
            let item = random.between(1, items);
            Line {
                item,
                supplied_by: warehouse,
                // All with the order in TPC-C.
                delivered: delivered.then(|| entered + DAY * i64::from(random.between(0, 20))),
                quantity: random.between(1, 10),
                amount: i64::from(random.between(1, 999_999)),
                info: stock[item as usize - 1].districts[district as usize - 1].clone(),
            }
        });
        let lines = lines.collect();
        // Each customer has just one order in TPC-C.
        let customer = random.between(1, count);
        let carrier = delivered.then(|| random.between(1, 10));
        Order { warehouse, district, number, customer, entered, carrier, lines }
    }
}

/// What is known of an item, which the queries look into.
fn data(random: &mut Random) -> String {
    let begin = if random.one_in(3) { random.pick(&["PR", "co", "zz"]) } else { "" };
    let end = if random.one_in(3) { random.pick(&["a", "b", "c", "BB"]) } else { "" };
    let original = if random.one_in(10) { "ORIGINAL" } else { "" };
    format!("{begin}{}{original}{}{end}", random.text(10, 20), random.text(10, 20))
}
