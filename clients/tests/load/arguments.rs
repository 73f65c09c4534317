//! What makes no sense is refused, with exit code 2 and a message that names it.

use super::{Bench, load};

fn refused(arguments: &str) -> String {
    let output = load(arguments).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments}: {said}");
    said
}

#[test]
fn bad_values_are_refused() {
    let cases = [
        ("produce", "--topic"),
        ("produce --topic t --size 0", "must be at least one byte"),
        ("produce --topic t --size many", "'many' for '--size"),
        ("produce --topic t --rate 0", "must be a number above 0"),
        ("produce --topic t --rate=-5", "must be a number above 0"),
        ("produce --topic t --rate nan", "must be a number above 0"),
        ("produce --topic t --keys 0", "'0' for '--keys"),
        ("produce --topic t --producers 0", "'0' for '--producers"),
        ("produce --topic t --in-flight 0", "'0' for '--in-flight"),
        ("produce --topic t --records 0", "'0' for '--records"),
        ("produce --topic t --seconds 0", "must be a number above 0"),
        ("produce --topic t --partitions 0", "'0' for '--partitions"),
        ("produce --topic t --acks 2", "'2' for '--acks"),
        (
            "produce --topic t --compression brotli",
            "'brotli' for '--compression",
        ),
        (
            "produce --topic t -X linger",
            "is not of the form key=value",
        ),
        (
            "produce --topic t --topic-config =5",
            "is not of the form key=value",
        ),
        (
            "produce --topic t --size 5 --payload f",
            "cannot be used with",
        ),
        ("consume --topic t --groups 0", "'0' for '--groups"),
        ("consume --topic t --from middle", "'middle' for '--from"),
        (
            "consume --topic t --isolation-level serializable",
            "'serializable' for '--isolation-level",
        ),
        (
            "produce --topic t --transactional-id=",
            "a value is required for '--transactional-id",
        ),
        (
            "produce --topic t --transactional-id a --transaction-duration-ms 0",
            "'0' for '--transaction-duration-ms",
        ),
        (
            "produce --topic t --transaction-duration-ms 100",
            "--transaction-duration-ms 100: there are no transactions without --transactional-id",
        ),
        (
            "produce --topic t --transactional-id a --acks 1",
            "--acks 1: transactions, which --transactional-id asks for, need --acks all",
        ),
        (
            "mix --topic t --transactional-id a --acks 0",
            "--acks 0: transactions",
        ),
        (
            "produce --topic t -X transactional.id=a",
            "-X transactional.id=a: each producer needs an id of its own",
        ),
        (
            "end-to-end --topic t -X transactional.id=a",
            "-X transactional.id=a: each producer needs an id of its own",
        ),
    ];
    for (arguments, wanted) in cases {
        let said = refused(arguments);
        assert!(said.contains(wanted), "{arguments}: {said}");
    }
}

#[test]
fn bad_payload_files_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("lines.json");
    let arguments = format!("produce --topic t --payload {}", path.display());
    assert!(refused(&arguments).contains("No such file"));
    std::fs::write(&path, "").expect("a file");
    assert!(refused(&arguments).contains("has no lines"));
    std::fs::write(&path, "{\"a\": 1}\n{\"a\": }\n").expect("a file");
    let said = refused(&arguments);
    assert!(said.contains("lines.json: line 2 is not JSON"), "{said}");
}

#[test]
fn what_does_not_suit_the_topic_is_refused() {
    let bench = Bench::start("");
    let with = |arguments: &str| format!("{arguments} --bootstrap {}", bench.milena.bootstrap());
    bench.run("produce --topic t --partitions 2 --records 10");
    let said = refused(&with("produce --topic t --partitions 3 --records 10"));
    assert!(
        said.contains("topic \"t\" has 2 partitions, not 3"),
        "{said}"
    );
    let said = refused(&with("consume --topic t --consumers 3 --records 10"));
    assert!(
        said.contains("3 consumers in a group are more than the 2 partitions"),
        "{said}"
    );
    let said = refused(&with("produce --topic t --idempotent --acks 1"));
    assert!(said.contains("--idempotent needs --acks all"), "{said}");
    let said = refused(&with("produce --topic t -X no.such.key=5"));
    assert!(said.contains("no.such.key"), "{said}");

    let output = load(&with("produce --topic other --records 10"))
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("topic \"other\" is not there, and no --partitions"),
        "{said}"
    );
}

#[test]
fn a_run_without_a_broker_ends() {
    let port = tests::free_port();
    let arguments = format!("produce --topic t --bootstrap 127.0.0.1:{port} --timeout-seconds 1");
    let output = load(&arguments).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
}
