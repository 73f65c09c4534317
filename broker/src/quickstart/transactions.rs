//! Card transactions, made up deterministically: the same seed and index give the same transaction.
//!
//! A transaction says nothing of what its customer did before. It belongs to an *episode*: a few transactions of one
//! customer within minutes, or one alone. Legitimate episodes come in five styles, fraudulent ones in three, and each fraud
//! style has a legitimate one whose transactions, one by one, look much like its own:
//!
//! | fraud | looks like | differs in what the customer did before |
//! |---|---|---|
//! | card testing: tiny amounts, one after another | a gamer's tiny purchases | countries and categories within the hour |
//! | far-away night purchases without the card | online shopping; travellers | usual amounts, countries, pace |
//! | account takeover: large purchases in a row | a big purchase | spent within the hour, usual amounts |
//!
//! Whether a transaction is fraud is returned beside it and never part of the record.

use serde::Serialize;

use super::random::Random;

/// The share of fraud in the feed of the quickstart, and in what the model was tuned for.
pub const FRAUD_RATE: f64 = 0.015;

/// How many customers there are; each keeps home country, usual amount and account age.
pub const CUSTOMERS: u64 = 5_000;

/// The time of the first transaction: 2026-01-01, in milliseconds since 1970.
pub const FIRST_MS: i64 = 1_767_225_600_000;
/// The time between two transactions: a customer has one every three hours or so, however fast they are fed.
pub const STEP_MS: i64 = 2_000;

/// How many of the transactions before it one may go on with: those of five minutes.
const REACH: u64 = 150;
/// Of how many transactions it is tried.
const FOLLOWS: f64 = 0.7;

/// What a payment processor would put on the topic, as JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Transaction {
    /// Unique within a seed: `t-` and the index.
    pub tx_id: String,
    /// Also the record's key.
    pub customer_id: String,
    /// When it happened, milliseconds since the epoch: [`FIRST_MS`], and [`STEP_MS`] for each one before.
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
    /// Days since the account was opened.
    pub account_age_days: u32,
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

impl Style {
    /// Whether others may go on with it.
    fn goes_on(self) -> bool {
        !matches!(self, Self::Everyday | Self::Online | Self::BigPurchase)
    }
}

/// By episodes.
const LEGITIMATE: [(Style, f64); 5] = [
    (Style::Everyday, 0.58),
    (Style::Online, 0.27),
    (Style::BigPurchase, 0.07),
    (Style::Traveller, 0.04),
    (Style::Gamer, 0.04),
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
            usual_amount: random.log_normal(38.0, 0.7).clamp(5.0, 800.0),
            account_age_days: random.log_normal(620.0, 1.1).clamp(1.0, 7000.0) as u32,
        }
    }

    fn anyone(random: &mut Random) -> Customer {
        Customer::new(random.below(CUSTOMERS))
    }

    /// One of those who play.
    fn gamer(random: &mut Random) -> Customer {
        Customer::new(random.below(CUSTOMERS / 10) * 10)
    }
}

/// What the transactions of an episode share.
struct Episode {
    fraud: bool,
    style: Style,
    customer: Customer,
    /// Where it is, where it is not at home.
    away: &'static str,
    hour: f64,
}

/// How likely an episode is fraud, for that share of the transactions: those that go on weigh more.
fn episode_fraud_rate(fraud_rate: f64) -> f64 {
    let going_on: f64 = LEGITIMATE
        .iter()
        .filter(|(style, _)| style.goes_on())
        .map(|(_, weight)| weight)
        .sum();
    let mut rate = fraud_rate;
    for _ in 0..32 {
        // The share of transactions in episodes that go on, and what it makes of fraud.
        let begun = rate + (1.0 - rate) * going_on;
        let share = begun / (1.0 - FOLLOWS + FOLLOWS * begun);
        rate = fraud_rate * (1.0 - FOLLOWS) / (1.0 - FOLLOWS * share);
    }
    rate
}

impl Episode {
    /// That which the transaction with this number begins, if it begins one.
    fn new(seed: u64, first: u64, fraud_rate: f64) -> Episode {
        let mut random = Random::new(seed, first);
        let fraud = random.chance(fraud_rate);
        let style = if fraud {
            random.weighted(&FRAUDULENT, Style::Takeover)
        } else {
            random.weighted(&LEGITIMATE, Style::Everyday)
        };
        let customer = match style {
            Style::Gamer => Customer::gamer(&mut random),
            _ => Customer::anyone(&mut random),
        };
        let away = COUNTRIES[random.below(COUNTRIES.len() as u64) as usize];
        let hour = match style {
            Style::Everyday | Style::BigPurchase => 14.0 + 4.0 * random.normal(),
            Style::Online => 19.5 + 4.0 * random.normal(),
            Style::Gamer => 22.0 + 3.5 * random.normal(),
            Style::FarNight => 3.0 + 4.0 * random.normal(),
            Style::Traveller | Style::CardTesting | Style::Takeover => random.uniform(0.0, 24.0),
        };
        Episode {
            fraud,
            style,
            customer,
            away,
            hour,
        }
    }

    /// That of a transaction.
    fn of(seed: u64, index: u64, fraud_rate: f64) -> Episode {
        let rate = episode_fraud_rate(fraud_rate);
        // The transactions that each would go on with, back to one that would not.
        let mut chain = vec![index];
        let mut at = index;
        loop {
            let mut random = Random::new(seed ^ 0x00e9_150d_e000, at);
            if at == 0 || !random.chance(FOLLOWS) {
                break;
            }
            at -= 1 + random.below(REACH.min(at));
            chain.push(at);
        }
        let mut episode = Episode::new(seed, at, rate);
        for &next in chain.iter().rev().skip(1) {
            if !episode.style.goes_on() {
                episode = Episode::new(seed, next, rate);
            }
        }
        episode
    }
}

/// What a style decides of one transaction.
struct Shape {
    /// Times the customer's usual amount.
    ratio: f64,
    category: &'static str,
    country: &'static str,
    card_present: bool,
}

/// The transaction with this number. `fraud_rate` is the share of fraud.
pub fn transaction(seed: u64, index: u64, fraud_rate: f64) -> Labelled {
    let episode = Episode::of(seed, index, fraud_rate);
    let mut random = Random::new(seed ^ 0x7a25, index);
    let shape = shape(&episode, &mut random);
    let customer = episode.customer;
    let amount = cents((shape.ratio * customer.usual_amount).clamp(0.5, 20_000.0));
    Labelled {
        transaction: Transaction {
            tx_id: format!("t-{index:09}"),
            customer_id: format!("c-{:05}", customer.number),
            ts: FIRST_MS.saturating_add((index as i64).saturating_mul(STEP_MS)),
            amount,
            currency: "EUR",
            merchant: Merchant {
                category: shape.category,
                country: shape.country,
            },
            card_present: shape.card_present,
            hour: episode.hour.rem_euclid(24.0) as u32,
            country: customer.home,
            account_age_days: customer.account_age_days,
        },
        fraud: episode.fraud,
    }
}

fn shape(episode: &Episode, random: &mut Random) -> Shape {
    let home = episode.customer.home;
    let away = |random: &mut Random, chance: f64| match random.chance(chance) {
        true => episode.away,
        false => home,
    };
    match episode.style {
        Style::Everyday => Shape {
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
            country: away(random, 0.03),
            card_present: random.chance(0.9),
        },
        Style::Online => Shape {
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
            country: away(random, 0.3),
            card_present: false,
        },
        Style::Traveller => Shape {
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
            country: away(random, 0.95),
            card_present: random.chance(0.7),
        },
        Style::BigPurchase => Shape {
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
            country: away(random, 0.2),
            card_present: random.chance(0.4),
        },
        Style::Gamer => Shape {
            ratio: random.log_normal(0.09, 0.7),
            category: random.weighted(&[("digital", 0.85), ("gift_card", 0.15)], "digital"),
            country: away(random, 0.1),
            card_present: false,
        },
        Style::CardTesting => Shape {
            ratio: random.log_normal(0.07, 0.7),
            category: random.weighted(
                &[
                    ("digital", 0.6),
                    ("gift_card", 0.2),
                    ("fashion", 0.1),
                    ("grocery", 0.1),
                ],
                "digital",
            ),
            // Wherever a shop takes the card.
            country: match random.chance(0.6) {
                true => COUNTRIES[random.below(COUNTRIES.len() as u64) as usize],
                false => home,
            },
            card_present: false,
        },
        Style::FarNight => Shape {
            ratio: random.log_normal(2.5, 0.8),
            category: random.weighted(
                &[
                    ("electronics", 0.45),
                    ("fashion", 0.25),
                    ("gift_card", 0.15),
                    ("travel", 0.15),
                ],
                "electronics",
            ),
            country: away(random, 0.85),
            card_present: random.chance(0.05),
        },
        Style::Takeover => Shape {
            ratio: random.log_normal(5.0, 0.6),
            category: random.weighted(
                &[
                    ("electronics", 0.4),
                    ("gift_card", 0.25),
                    ("travel", 0.2),
                    ("fashion", 0.15),
                ],
                "electronics",
            ),
            country: away(random, 0.3),
            card_present: random.chance(0.08),
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
            let labelled = transaction(seed, index, FRAUD_RATE);
            serde_json::to_string(&labelled.transaction).unwrap()
        };
        // As it is on every machine.
        assert_eq!(json(1, 1000), GOLDEN);
        assert_ne!(json(1, 1), json(2, 1));
    }

    const GOLDEN: &str = concat!(
        r#"{"tx_id":"t-000001000","customer_id":"c-04993","ts":1767227600000,"amount":20.65,"#,
        r#""currency":"EUR","merchant":{"category":"restaurant","country":"CZ"},"#,
        r#""card_present":true,"hour":6,"country":"CZ","account_age_days":83}"#
    );

    #[test]
    fn fraud_is_as_rare_as_asked() {
        let of = |rate: f64| {
            let all = (0..100_000).map(|index| transaction(3, index, rate));
            all.filter(|labelled| labelled.fraud).count() as f64 / 100_000.0
        };
        // Episodes make it uneven.
        for (rate, tolerance) in [(0.1, 0.01), (FRAUD_RATE, 0.004)] {
            let found = of(rate);
            assert!((found - rate).abs() < tolerance, "{found} is not {rate}");
        }
    }

    #[test]
    fn episodes_are_of_one_customer_within_minutes() {
        let mut follows = 0;
        let mut last = std::collections::HashMap::new();
        for index in 0..20_000u64 {
            let transaction = transaction(3, index, FRAUD_RATE).transaction;
            let before = last.insert(transaction.customer_id, transaction.ts);
            if before.is_some_and(|before| transaction.ts - before <= 300_000) {
                follows += 1;
            }
        }
        // Without episodes it would be one in 33.
        assert!((2_000..6_000).contains(&follows), "{follows}");
    }
}
