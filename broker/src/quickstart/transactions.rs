//! Card transactions, made up deterministically: the same seed and index give the same transaction.
//!
//! Legitimate ones come in five styles, fraudulent ones in three, and each fraud style has a
//! legitimate one that looks like it in every single field:
//!
//! | fraud | looks like | differs in the combination of |
//! |---|---|---|
//! | card testing: bursts of tiny amounts | a gamer's bursts of tiny purchases | account age, distance |
//! | far-away night purchases without the card | online shopping; travellers | hour, distance, presence, category |
//! | account takeover: large purchases in a row | a big purchase | number in the last hour, presence, category |
//!
//! Whether a transaction is fraud is returned beside it and never part of the record.

use serde::Serialize;

use super::random::Random;

/// The share of fraud in the feed of the quickstart, and in what the model was tuned for.
pub const FRAUD_RATE: f64 = 0.015;

/// How many customers there are; each keeps home country, usual amount and account age.
pub const CUSTOMERS: u64 = 20_000;

/// What a payment processor would put on the topic, as JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Transaction {
    /// Unique within a seed: `t-` and the index.
    pub tx_id: String,
    /// Also the record's key.
    pub customer_id: String,
    /// When it was sent, milliseconds since the epoch.
    pub ts: i64,
    /// In `currency`, with cents.
    pub amount: f64,
    /// Always EUR.
    pub currency: &'static str,
    /// Who is paid.
    pub merchant: Merchant,
    /// Whether the card was in the terminal; false online and by phone.
    pub card_present: bool,
    /// Hour of the day where the customer lives, 0 to 23. Drawn, not taken from `ts`, so that a
    /// minute of feed shows a whole day.
    pub hour: u32,
    /// Where the customer lives.
    pub country: &'static str,
    /// Transactions of this customer in the hour before.
    pub n_last_hour: u32,
    /// The amount divided by the customer's usual amount.
    pub amount_vs_mean: f64,
    /// Days since the account was opened.
    pub account_age_days: u32,
    /// From the customer's home to the terminal or, online, to the device.
    pub distance_km: f64,
}

/// The merchant's part of a [`Transaction`].
#[derive(Clone, Debug, Serialize)]
pub struct Merchant {
    /// One of [`CATEGORIES`].
    pub category: &'static str,
    /// One of [`COUNTRIES`].
    pub country: &'static str,
}

/// A transaction and the truth about it.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// The record.
    pub transaction: Transaction,
    /// Not in the record.
    pub fraud: bool,
}

/// Merchant categories.
pub const CATEGORIES: [&str; 9] = [
    "grocery",
    "fuel",
    "restaurant",
    "pharmacy",
    "fashion",
    "electronics",
    "travel",
    "digital",
    "gift_card",
];

/// Countries of customers and merchants.
pub const COUNTRIES: [&str; 8] = ["CZ", "DE", "AT", "PL", "FR", "GB", "US", "TH"];

const HOMES: [(&str, f64); 5] = [
    ("CZ", 0.4),
    ("DE", 0.25),
    ("AT", 0.15),
    ("PL", 0.12),
    ("FR", 0.08),
];

#[derive(Clone, Copy, Debug)]
enum Style {
    Everyday,
    Online,
    Traveller,
    BigPurchase,
    Gamer,
    CardTesting,
    FarNight,
    Takeover,
}

const LEGITIMATE: [(Style, f64); 5] = [
    (Style::Everyday, 0.50),
    (Style::Online, 0.26),
    (Style::Traveller, 0.08),
    (Style::BigPurchase, 0.07),
    (Style::Gamer, 0.09),
];

const FRAUDULENT: [(Style, f64); 3] = [
    (Style::CardTesting, 0.40),
    (Style::FarNight, 0.35),
    (Style::Takeover, 0.25),
];

/// A customer, the same for the same number whatever the seed.
struct Customer {
    number: u64,
    home: &'static str,
    usual_amount: f64,
    account_age_days: u32,
}

impl Customer {
    fn new(number: u64) -> Customer {
        let mut random = Random::new(0xc057, number);
        Customer {
            number,
            home: random.weighted(&HOMES, "CZ"),
            usual_amount: random.log_normal(38.0, 0.45).clamp(8.0, 400.0),
            account_age_days: random.log_normal(620.0, 1.1).clamp(1.0, 7000.0) as u32,
        }
    }

    /// Of a few customers the one with the youngest account.
    fn youngest_of(random: &mut Random, draws: usize) -> Customer {
        let mut youngest = Customer::new(random.below(CUSTOMERS));
        for _ in 1..draws {
            let other = Customer::new(random.below(CUSTOMERS));
            if other.account_age_days < youngest.account_age_days {
                youngest = other;
            }
        }
        youngest
    }
}

/// What a style decides.
struct Shape {
    customer: Customer,
    /// Times the customer's usual amount.
    ratio: f64,
    category: &'static str,
    abroad: bool,
    card_present: bool,
    hour: f64,
    n_last_hour: u32,
    distance_km: f64,
}

/// The transaction with this number. `fraud_rate` is the probability of fraud; `ts_ms` is only
/// written down.
pub fn transaction(seed: u64, index: u64, fraud_rate: f64, ts_ms: i64) -> Labelled {
    let mut random = Random::new(seed, index);
    let fraud = random.chance(fraud_rate);
    let style = if fraud {
        random.weighted(&FRAUDULENT, Style::Takeover)
    } else {
        random.weighted(&LEGITIMATE, Style::Everyday)
    };
    let shape = shape(style, &mut random);
    let customer = shape.customer;
    let amount = cents((shape.ratio * customer.usual_amount).clamp(0.5, 20_000.0));
    let country = if shape.abroad {
        COUNTRIES[random.below(COUNTRIES.len() as u64) as usize]
    } else {
        customer.home
    };
    Labelled {
        transaction: Transaction {
            tx_id: format!("t-{index:09}"),
            customer_id: format!("c-{:05}", customer.number),
            ts: ts_ms,
            amount,
            currency: "EUR",
            merchant: Merchant {
                category: shape.category,
                country,
            },
            card_present: shape.card_present,
            hour: shape.hour.rem_euclid(24.0) as u32,
            country: customer.home,
            n_last_hour: shape.n_last_hour,
            amount_vs_mean: cents(amount / customer.usual_amount),
            account_age_days: customer.account_age_days,
            distance_km: (shape.distance_km.clamp(0.0, 18_000.0) * 10.0).round() / 10.0,
        },
        fraud,
    }
}

fn shape(style: Style, random: &mut Random) -> Shape {
    let anyone = |random: &mut Random| Customer::new(random.below(CUSTOMERS));
    match style {
        Style::Everyday => Shape {
            customer: anyone(random),
            ratio: random.log_normal(0.6, 0.7),
            category: random.weighted(
                &[
                    ("grocery", 0.4),
                    ("fuel", 0.15),
                    ("restaurant", 0.22),
                    ("pharmacy", 0.1),
                    ("fashion", 0.08),
                    ("electronics", 0.05),
                ],
                "grocery",
            ),
            abroad: random.chance(0.03),
            card_present: random.chance(0.9),
            hour: 14.0 + 4.0 * random.normal(),
            n_last_hour: random.count(0.5),
            distance_km: random.log_normal(9.0, 1.3),
        },
        Style::Online => Shape {
            customer: anyone(random),
            ratio: random.log_normal(0.9, 0.9),
            category: random.weighted(
                &[
                    ("fashion", 0.25),
                    ("electronics", 0.25),
                    ("digital", 0.18),
                    ("grocery", 0.1),
                    ("travel", 0.1),
                    ("gift_card", 0.12),
                ],
                "fashion",
            ),
            abroad: random.chance(0.3),
            card_present: false,
            hour: 19.5 + 4.0 * random.normal(),
            n_last_hour: random.count(1.2),
            distance_km: random.log_normal(60.0, 1.9),
        },
        Style::Traveller => Shape {
            customer: anyone(random),
            ratio: random.log_normal(1.5, 0.8),
            category: random.weighted(
                &[
                    ("travel", 0.25),
                    ("restaurant", 0.3),
                    ("fashion", 0.15),
                    ("electronics", 0.12),
                    ("fuel", 0.1),
                    ("digital", 0.08),
                ],
                "travel",
            ),
            abroad: random.chance(0.9),
            card_present: random.chance(0.82),
            hour: random.uniform(0.0, 24.0),
            n_last_hour: random.count(1.2),
            distance_km: random.log_normal(1500.0, 0.9),
        },
        Style::BigPurchase => Shape {
            customer: anyone(random),
            ratio: random.log_normal(6.0, 0.6),
            category: random.weighted(
                &[
                    ("electronics", 0.4),
                    ("travel", 0.3),
                    ("fashion", 0.2),
                    ("gift_card", 0.1),
                ],
                "electronics",
            ),
            abroad: random.chance(0.2),
            card_present: random.chance(0.5),
            hour: 15.0 + 4.0 * random.normal(),
            n_last_hour: random.count(0.5),
            distance_km: random.log_normal(40.0, 1.8),
        },
        Style::Gamer => Shape {
            customer: anyone(random),
            ratio: random.log_normal(0.09, 0.7),
            category: random.weighted(&[("digital", 0.85), ("gift_card", 0.15)], "digital"),
            abroad: random.chance(0.35),
            card_present: false,
            hour: 22.0 + 3.5 * random.normal(),
            n_last_hour: 1 + random.count(4.0),
            distance_km: random.log_normal(12.0, 1.3),
        },
        Style::CardTesting => Shape {
            customer: Customer::youngest_of(random, 5),
            ratio: random.log_normal(0.06, 0.7),
            category: random.weighted(
                &[
                    ("digital", 0.6),
                    ("gift_card", 0.2),
                    ("fashion", 0.1),
                    ("grocery", 0.1),
                ],
                "digital",
            ),
            abroad: random.chance(0.5),
            card_present: false,
            hour: random.uniform(0.0, 24.0),
            n_last_hour: 1 + random.count(5.0),
            distance_km: random.log_normal(70.0, 1.6),
        },
        Style::FarNight => Shape {
            customer: anyone(random),
            ratio: random.log_normal(2.2, 0.8),
            category: random.weighted(
                &[
                    ("electronics", 0.5),
                    ("fashion", 0.25),
                    ("gift_card", 0.15),
                    ("travel", 0.1),
                ],
                "electronics",
            ),
            abroad: random.chance(0.8),
            card_present: random.chance(0.05),
            hour: 2.5 + 2.0 * random.normal(),
            n_last_hour: random.count(1.0),
            distance_km: random.log_normal(1100.0, 0.9),
        },
        Style::Takeover => Shape {
            customer: anyone(random),
            ratio: random.log_normal(5.0, 0.6),
            category: random.weighted(
                &[
                    ("electronics", 0.4),
                    ("gift_card", 0.35),
                    ("travel", 0.15),
                    ("fashion", 0.1),
                ],
                "electronics",
            ),
            abroad: random.chance(0.35),
            card_present: random.chance(0.08),
            hour: random.uniform(6.0, 26.0),
            n_last_hour: 1 + random.count(3.0),
            distance_km: random.log_normal(40.0, 1.6),
        },
    }
}

fn cents(amount: f64) -> f64 {
    (amount * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_and_index_make_the_transaction() {
        let json = |seed, index| {
            let labelled = transaction(seed, index, FRAUD_RATE, 1000);
            serde_json::to_string(&labelled.transaction).unwrap()
        };
        // As it is on every machine.
        assert_eq!(json(1, 0), GOLDEN);
        assert_ne!(json(1, 1), json(2, 1));
    }

    const GOLDEN: &str = concat!(
        r#"{"tx_id":"t-000000000","customer_id":"c-08531","ts":1000,"amount":1.13,"#,
        r#""currency":"EUR","merchant":{"category":"digital","country":"DE"},"#,
        r#""card_present":false,"hour":23,"country":"DE","n_last_hour":1,"#,
        r#""amount_vs_mean":0.04,"account_age_days":1420,"distance_km":6.4}"#
    );

    #[test]
    fn fraud_is_as_rare_as_asked() {
        let fraud = (0..50_000).filter(|&index| transaction(3, index, 0.1, 0).fraud);
        assert!((4_700..5_300).contains(&fraud.count()));
    }
}
