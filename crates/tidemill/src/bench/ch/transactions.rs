//! TPC-C's transactions that change rows: new orders, payments and deliveries, in its proportions (45 : 43 : 4).
//!
//! Rows of large tables are replaced by their keys, as an `UPDATE` reads its whole table.

use std::collections::BTreeSet;

use super::population::{DISTRICTS, Database};
use super::rows::{CUSTOMER, Line, ORDER_LINE, ORDERS, Order, STOCK, insert, money, time};

/// Seconds between transactions at most: the queries' years pass within some thousands.
const PAUSE: u32 = 57_600;
/// Letters that are kept of what a customer did.
const DATA: usize = 100;

/// What a transaction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An order is entered.
    NewOrder,
    /// A customer pays.
    Payment,
    /// The eldest order of each district of a warehouse is delivered.
    Delivery,
}

/// All kinds.
pub const KINDS: [Kind; 3] = [Kind::NewOrder, Kind::Payment, Kind::Delivery];

impl Kind {
    /// In tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::NewOrder => "new-order",
            Kind::Payment => "payment",
            Kind::Delivery => "delivery",
        }
    }
}

/// A transaction.
pub struct Transaction {
    pub kind: Kind,
    statements: Vec<String>,
}

impl Transaction {
    /// Its statements, between `BEGIN` and `COMMIT`.
    pub fn sql(&self) -> String {
        format!("BEGIN;\n{};\nCOMMIT;\n", self.statements.join(";\n"))
    }
}

impl Database {
    /// The next transaction.
    pub fn transaction(&mut self) -> Transaction {
        self.now += i64::from(self.random.between(1, PAUSE));
        let warehouse = self.random.between(1, self.scale.warehouses);
        let kind = match self.random.between(1, 92) {
            1..=45 => Kind::NewOrder,
            46..=88 => Kind::Payment,
            _ if self.anything_waits(warehouse) => Kind::Delivery,
            _ => Kind::NewOrder,
        };
        let statements = match kind {
            Kind::NewOrder => self.new_order(warehouse),
            Kind::Payment => self.payment(warehouse),
            Kind::Delivery => self.delivery(warehouse),
        };
        Transaction { kind, statements }
    }

    fn anything_waits(&self, warehouse: u32) -> bool {
        (1..=DISTRICTS).any(|district| !self.districts[self.district_at(warehouse, district)].waiting.is_empty())
    }

    /// One of the other warehouses, if there are any, once in so many times; else this one.
    fn warehouse_but(&mut self, warehouse: u32, times: u32) -> u32 {
        let warehouses = self.scale.warehouses;
        if warehouses == 1 || !self.random.one_in(times) {
            return warehouse;
        }
        (warehouse - 1 + self.random.between(1, warehouses - 1)) % warehouses + 1
    }

    fn any_customer(&mut self) -> u32 {
        self.random.uneven(1023, 1, self.scale.customers)
    }

    fn new_order(&mut self, warehouse: u32) -> Vec<String> {
        let (district, customer) = (self.random.between(1, DISTRICTS), self.any_customer());
        let mut touched = BTreeSet::new();
        let mut lines = Vec::new();
        for _ in 0..self.random.between(5, 15) {
            let (at, line) = self.sell(warehouse, district);
            touched.insert(at);
            lines.push(line);
        }
        let at = self.district_at(warehouse, district);
        let number = self.districts[at].next_order;
        self.districts[at].next_order += 1;
        let order = Order { warehouse, district, number, customer, entered: self.now, carrier: None, lines };
        let stock: Vec<String> = touched.into_iter().map(|at| self.stock[at].row()).collect();
        let counted = format!(
            "UPDATE district SET d_next_o_id = d_next_o_id + 1 WHERE d_w_id = {warehouse} AND d_id = {district}"
        );
        let statements = vec![
            counted,
            insert("orders", &[order.row()]),
            insert("new_order", &[order.key()]),
            STOCK.replace(&stock),
            insert("order_line", &order.line_rows()),
        ];
        self.districts[at].waiting.push_back(order);
        statements
    }

    /// Takes some of an item from its stock; gives the place of that and the order's line.
    fn sell(&mut self, warehouse: u32, district: u32) -> (usize, Line) {
        let (item, supplied_by) = (self.random.uneven(8191, 1, self.scale.items), self.warehouse_but(warehouse, 100));
        let (quantity, at) = (self.random.between(1, 10), self.stock_at(supplied_by, item));
        let stock = &mut self.stock[at];
        let refill = if stock.quantity < quantity + 10 { 91 } else { 0 };
        stock.quantity = stock.quantity + refill - quantity;
        stock.sold += quantity;
        stock.orders += 1;
        stock.remote += u32::from(supplied_by != warehouse);
        let amount = self.prices[item as usize - 1] * i64::from(quantity);
        let info = stock.districts[district as usize - 1].clone();
        (at, Line { item, supplied_by, delivered: None, quantity, amount, info })
    }

    fn payment(&mut self, warehouse: u32) -> Vec<String> {
        let district = self.random.between(1, DISTRICTS);
        let home = self.warehouse_but(warehouse, 7);
        let (home_district, customer) = (self.random.between(1, DISTRICTS), self.any_customer());
        let home_district = if home == warehouse { district } else { home_district };
        let cents = i64::from(self.random.between(100, 500_000));
        let (amount, now, data) = (money(cents), time(self.now), self.random.text(12, 24));
        let at = self.customer_at(home, home_district, customer);
        let payer = &mut self.customers[at];
        payer.balance -= cents;
        payer.paid += cents;
        payer.payments += 1;
        if payer.bad_credit {
            let note = format!("{customer} {home_district} {home} {district} {warehouse} {amount} {}", payer.data);
            payer.data = note.chars().take(DATA).collect();
        }
        let key = format!("{home}, {home_district}, {customer}");
        vec![
            format!("UPDATE warehouse SET w_ytd = w_ytd + {amount} WHERE w_id = {warehouse}"),
            format!("UPDATE district SET d_ytd = d_ytd + {amount} WHERE d_w_id = {warehouse} AND d_id = {district}"),
            CUSTOMER.replace(&[payer.row()]),
            insert("history", &[format!("{key}, {warehouse}, {district}, {now}, {amount}, '{data}'")]),
        ]
    }

    fn delivery(&mut self, warehouse: u32) -> Vec<String> {
        let carrier = self.random.between(1, 10);
        let (mut delivered, mut customers) = (Vec::new(), Vec::new());
        for district in 1..=DISTRICTS {
            let at = self.district_at(warehouse, district);
            let Some(mut order) = self.districts[at].waiting.pop_front() else { continue };
            order.carrier = Some(carrier);
            order.lines.iter_mut().for_each(|line| line.delivered = Some(self.now));
            let at = self.customer_at(warehouse, district, order.customer);
            let customer = &mut self.customers[at];
            customer.balance += order.lines.iter().map(|line| line.amount).sum::<i64>();
            customer.deliveries += 1;
            customers.push(customer.row());
            delivered.push(order);
        }
        let gone = delivered.iter().map(|order| format!("no_d_id = {} AND no_o_id = {}", order.district, order.number));
        let gone: Vec<String> = gone.collect();
        vec![
            format!("DELETE FROM new_order WHERE no_w_id = {warehouse} AND ({})", gone.join(" OR ")),
            ORDERS.replace(&delivered.iter().map(Order::row).collect::<Vec<String>>()),
            ORDER_LINE.replace(&delivered.iter().flat_map(Order::line_rows).collect::<Vec<String>>()),
            CUSTOMER.replace(&customers),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::ch::population::{Scale, populate};

    const SCALE: Scale = Scale { warehouses: 2, items: 50, customers: 20 };

    #[test]
    fn a_seed_gives_the_same_transactions() {
        let some = |seed| {
            let (mut database, load) = populate(SCALE, seed);
            let transactions: Vec<String> = (0..50).map(|_| database.transaction().sql()).collect();
            (load, transactions)
        };
        assert_eq!(some(1), some(1));
        assert_ne!(some(1).1, some(2).1);
    }

    #[test]
    fn the_mix_is_that_of_the_specification() {
        let (mut database, _) = populate(SCALE, 7);
        let kinds: Vec<Kind> = (0..9200).map(|_| database.transaction().kind).collect();
        let count = |kind| kinds.iter().filter(|k| **k == kind).count();
        assert!((4200..4800).contains(&count(Kind::NewOrder)), "{}", count(Kind::NewOrder));
        assert!((4000..4600).contains(&count(Kind::Payment)), "{}", count(Kind::Payment));
        assert!((300..500).contains(&count(Kind::Delivery)), "{}", count(Kind::Delivery));
        // What is ordered is delivered sooner or later: about as much is waiting as in the beginning.
        let waiting: usize = database.districts.iter().map(|district| district.waiting.len()).sum();
        assert!(waiting < 1500, "{waiting}");
    }
}
