//! Model topics that remember: windowed features, rules, lookups and late records, with real weights on the log in memory.

mod world;

use bytes::Bytes;
use inference::stream_log::OutputTopic;
use inference::stream_log::memory::CommitFault;
use inference::task::{Remembered, State};
use serde_json::json;

use world::{World, header, null_value, record, until};

const FEATURES: &str = r#"
output = { template = { id = "$in.id", f = "$f", out = "$out.value" } }
state = { ttl = "1h" }
feature = [
  { name = "amount", path = "$.amount" },
  { name = "n", agg = "count", window = { sliding = "10s", slice = "1s" } },
  { name = "sum", agg = "sum", path = "$.amount", window = { sliding = "10s", slice = "1s" } },
  { name = "since", agg = "time_since_last", default = -1 },
]
"#;

fn payment(id: i64, ms: i64, key: &str, amount: f64) -> world::Record {
    record(ms, key, &json!({"id": id, "amount": amount}).to_string())
}

#[tokio::test]
async fn features_are_of_what_the_key_did() {
    let world = World::new(1);
    let running = world.start(FEATURES);
    world.append(vec![
        payment(1, 10_000, "a", 2.0),
        payment(2, 11_500, "b", 5.0),
        payment(3, 12_000, "a", 3.0),
        payment(4, 19_999, "a", 1.0),
        payment(5, 21_000, "a", 4.0),
        payment(6, 100_000, "a", 1.0),
    ]);
    let outputs = world.outputs(0, 6).await;
    let features: Vec<_> = outputs.iter().map(|output| output["f"].clone()).collect();
    assert_eq!(
        features,
        [
            json!({"amount": 2.0, "n": 1.0, "sum": 2.0, "since": -1.0}),
            json!({"amount": 5.0, "n": 1.0, "sum": 5.0, "since": -1.0}),
            json!({"amount": 3.0, "n": 2.0, "sum": 5.0, "since": 2.0}),
            // The slices of seconds 10 to 19.
            json!({"amount": 1.0, "n": 3.0, "sum": 6.0, "since": 7.999}),
            // 12 to 21.
            json!({"amount": 4.0, "n": 3.0, "sum": 8.0, "since": 1.001}),
            json!({"amount": 1.0, "n": 1.0, "sum": 1.0, "since": 79.0}),
        ]
    );
    // The model is amount + 10 n + 100 sum + 0 since.
    assert_eq!(outputs[3]["out"], json!(631.0));
    running.stop().await;
}

/// What an uninterrupted run gives, whatever fails in this one.
#[tokio::test]
async fn nothing_is_counted_twice_or_lost_whatever_commits_come_to() {
    let records = |from: i64, to: i64| -> Vec<_> {
        let payment = |id: i64| payment(id, 1_000 * id, &format!("k{}", id % 7), (id % 5) as f64);
        (from..to).map(payment).collect()
    };
    let expected = {
        let world = World::new(1);
        let running = world.start(FEATURES);
        world.append(records(0, 600));
        let outputs = world.outputs(0, 600).await;
        running.stop().await;
        outputs
    };
    let world = World::new(1);
    for (round, fault) in [
        CommitFault::Retry,
        CommitFault::UnknownNotDone,
        CommitFault::UnknownDone,
        CommitFault::UnknownDone,
        CommitFault::Retry,
        CommitFault::UnknownNotDone,
    ]
    .into_iter()
    .enumerate()
    {
        let running = world.start(FEATURES);
        world.topics.fail_commit(fault);
        let to = 100 * (round + 1);
        world.append(records(to as i64 - 100, to as i64));
        if round % 2 == 0 {
            world.outputs(0, to).await;
        }
        world.crash(running);
    }
    let running = world.start(FEATURES);
    assert_eq!(world.outputs(0, 600).await, expected);
    running.stop().await;
}

#[tokio::test]
async fn more_state_than_memory_gives_the_same() {
    let records = || -> Vec<_> {
        let payment = |id: i64| {
            payment(
                id,
                20 * id,
                &format!("key {}", (id * 7919) % 1000),
                id as f64,
            )
        };
        (0..6000).map(payment).collect()
    };
    let mut all = Vec::new();
    for max_bytes in ["512MiB", "20KiB"] {
        let world = World::new(1);
        let spec = FEATURES.replace("ttl =", &format!("max_bytes = \"{max_bytes}\", ttl ="));
        let running = world.start(&spec);
        world.append(records());
        all.push(world.outputs(0, 6000).await);
        running.stop().await;
        // After a clean stop what is on the disk is taken up.
        let running = world.start(&spec);
        world.append(vec![payment(9999, 130_000, "key 7", 1.0)]);
        let last = world.outputs(0, 6001).await;
        all.push(last[6000..].to_vec());
        running.stop().await;
    }
    assert_eq!(all[0], all[2]);
    assert_eq!(all[1], all[3]);
    assert_ne!(all[1][0]["f"]["since"], json!(-1.0));
}

#[tokio::test]
async fn rules_produce_alerts_in_the_same_commit() {
    let world = World::new(2);
    let running = world.start(&format!(
        "{FEATURES}
[[rule]]
when = '$f.n >= 2 && value > 100'
produce = 'alerts'
template = {{ who = '$in.id', why = 'often' }}
[[rule]]
when = '$in.amount == 7'
produce = 'sevens'
"
    ));
    world.append(vec![
        payment(1, 1000, "a", 7.0),
        payment(2, 2000, "a", 1.0),
        payment(3, 60_000, "a", 1.0),
    ]);
    let outputs = world.outputs(0, 3).await;
    let alerts = world.topics.outputs(OutputTopic::Alert(0), 0);
    assert_eq!(alerts.len(), 1);
    assert_eq!(world::json(&alerts[0]), json!({"who": 2, "why": "often"}));
    assert_eq!(alerts[0].key.as_deref(), Some(&b"a"[..]));
    assert_eq!(header(&alerts[0], "milena.source.offset"), "1");
    let sevens = world.topics.outputs(OutputTopic::Alert(1), 0);
    assert_eq!(world::json(&sevens[0]), outputs[0]);
    running.stop().await;
}

#[tokio::test]
async fn late_records_are_dropped_from_windows_or_dead_letters_or_count() {
    let spec = |late: &str| {
        format!(
            "late = '{late}'\noutput = {{ template = {{ v = '$f.n' }} }}\nstate = {{ ttl = '1h' }}
             feature = [{{ name = 'n', agg = 'count', window = {{ tumbling = '10s', grace = '1s' }} }}]"
        )
    };
    // The window of second 0 to 9 closes at 11.
    let records = || {
        vec![
            record(1_000, "a", "{}"),
            record(10_999, "b", "{}"),
            record(2_000, "a", "{}"),
            record(11_000, "b", "{}"),
            record(3_000, "a", "{}"),
            record(4_000, "a", "{}"),
        ]
    };
    for (late, expected, dead) in [
        ("drop", &[1, 1, 2, 2, 0, 0][..], 0),
        ("dlq", &[1, 1, 2, 2], 2),
        ("update", &[1, 1, 2, 2, 3, 4], 0),
    ] {
        let world = World::new(1);
        let running = world.start(&spec(late));
        world.append(records());
        world.until_position(0, 6).await;
        let counts: Vec<_> = world.outputs(0, expected.len()).await;
        let expected: Vec<_> = expected
            .iter()
            .map(|n| json!({"v": f64::from(*n)}))
            .collect();
        assert_eq!(counts, expected, "{late}");
        let letters = world.topics.outputs(OutputTopic::DeadLetter, 0);
        assert_eq!(letters.len(), dead, "{late}");
        for letter in letters {
            assert_eq!(header(&letter, "stage"), "features");
            assert!(header(&letter, "reason").starts_with("late: "));
        }
        running.stop().await;
    }
}

#[tokio::test]
async fn null_keys_are_dead_letters_and_null_values_pass() {
    let world = World::new(1);
    let running = world.start(FEATURES);
    let mut keyless = payment(1, 1000, "", 1.0);
    keyless.key = None;
    world.append(vec![
        keyless,
        null_value(2000, "a"),
        payment(2, 3000, "a", 1.0),
        record(4000, "a", r#"{"id": 3, "amount": "much"}"#),
        payment(4, 5000, "a", 1.0),
    ]);
    world.until_position(0, 5).await;
    let outputs = world.topics.outputs(OutputTopic::Derived, 0);
    assert_eq!(outputs.len(), 3);
    assert_eq!(outputs[0].value, None);
    // What could not be read does not count.
    assert_eq!(world::json(&outputs[2])["f"]["n"], json!(2.0));
    let letters = world.topics.outputs(OutputTopic::DeadLetter, 0);
    assert_eq!(
        header(&letters[0], "reason"),
        "its key is null, and state is kept by key"
    );
    assert_eq!(
        header(&letters[1], "reason"),
        "field \"$.amount\": a number is needed, not the text \"much\""
    );
    running.stop().await;
}

#[tokio::test]
async fn whole_numbers_that_no_double_is_are_counted_apart() {
    let world = World::new(1);
    let running = world.start(
        "output = { template = { v = '$f.ids' } }
         feature = [{ name = 'ids', agg = 'distinct', path = '$.id' }]",
    );
    let big = 1i64 << 53;
    world.append(
        [big, big + 1, big, big + 2]
            .map(|id| payment(id, 1, "a", 1.0))
            .to_vec(),
    );
    let outputs = world.outputs(0, 4).await;
    assert_eq!(outputs, [1.0, 2.0, 2.0, 3.0].map(|ids| json!({"v": ids})));
    running.stop().await;
}

#[tokio::test]
async fn tables_are_caught_up_with_and_followed() {
    let world = World::new(1);
    let table = |key: &str, value: Option<&str>| {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        world
            .topics
            .append_table("customers", (Some(bytes(key)), value.map(bytes)));
    };
    for n in 0..1000 {
        table(&n.to_string(), Some(&format!("{{\"age\": {n}}}")));
    }
    table("7", Some("{\"age\": 70}"));
    let running = world.start(
        "output = { template = { v = '$f.age' } }
         feature = [{ name = 'age', lookup = { table = 'customers', key = '$.customer', path = '$.age', default = -1 } }]",
    );
    let of = |customer: &str| record(1, "k", &format!("{{\"customer\": {customer}}}"));
    world.append(vec![of("7"), of("\"999\""), of("1000"), of("null")]);
    assert_eq!(
        world.outputs(0, 4).await,
        [70.0, 999.0, -1.0, -1.0].map(|age| json!({"v": age}))
    );
    table("7", None);
    table("1000", Some("{\"age\": 3}"));
    let mut appended = 4;
    until("the table's news", || {
        world.append(vec![of("1000"), of("7")]);
        appended += 2;
        std::thread::sleep(std::time::Duration::from_millis(20));
        let outputs = world.topics.outputs(OutputTopic::Derived, 0);
        let last = outputs.last().map(world::json);
        outputs
            .iter()
            .any(|output| world::json(output) == json!({"v": 3.0}))
            && last == Some(json!({"v": -1.0}))
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn features_that_the_state_has_nothing_for_are_refused() {
    let world = World::new(1);
    let running = world.start(FEATURES);
    world.append(vec![payment(1, 1000, "a", 1.0)]);
    world.outputs(0, 1).await;
    running.stop().await;

    // Fewer windows, other names, scaling and defaults go on with it.
    let fewer = "output = { template = { f = '$f' } }\nstate = { ttl = '1h' }
        feature = [{ name = 'count', agg = 'count', window = { sliding = '10s', slice = '1s' }, scale = { mean = 1, std = 2 } }]";
    let running = world.start(fewer);
    world.append(vec![payment(2, 2000, "a", 1.0)]);
    assert_eq!(world.outputs(0, 2).await[1], json!({"f": {"count": 0.5}}));
    running.stop().await;

    // A window that was let go is not taken up again.
    let running = world.start(FEATURES);
    until("the halt", || running.status().state != State::Running).await;
    let State::Halted { reason } = running.status().state else {
        panic!("it runs");
    };
    assert!(
        reason.contains(
            "the state has nothing for $.amount in sliding windows of 10000 ms by 1000 ms"
        ),
        "{reason}"
    );
    running.stop().await;
}

#[tokio::test]
async fn state_is_told_to_those_who_ask() {
    let world = World::new(2);
    let running = world.start(FEATURES);
    world.append(vec![payment(1, 1000, "a", 3.0), payment(2, 2000, "a", 4.0)]);
    world.outputs(0, 2).await;
    let reader = running.state().unwrap();
    let get = |key: &[u8]| match reader.get(key).unwrap() {
        Remembered::Key(state) => Some(state),
        _ => None,
    };
    until("the commit", || get(b"a").unwrap().is_committed).await;
    let state = get(b"a").unwrap();
    assert_eq!((state.partition, state.stream_ms), (0, Some(2000)));
    let features: serde_json::Map<_, _> = state
        .features
        .into_iter()
        .map(|(name, value)| (name, value.to_json()))
        .collect();
    assert_eq!(json!(features), json!({"n": 2.0, "sum": 7.0, "since": 0.0}));
    assert_eq!(reader.get(b"b").unwrap(), Remembered::Nothing);
    running.stop().await;
}
