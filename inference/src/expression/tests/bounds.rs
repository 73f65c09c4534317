//! What is long, deep or senseless.

use serde_json::json;

use super::*;

/// On a stack as small as a thread's of the runtime.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(test);
    thread.unwrap().join().unwrap();
}

#[test]
fn bounds_what_is_long_or_deep() {
    on_a_small_stack(|| {
        let brackets = |n| format!("{}1{}", "(".repeat(n), ")".repeat(n));
        let calls = |n| format!("{}-$in.i{}", "abs(".repeat(n), ")".repeat(n));
        let sum = |n| format!("$in.i{}", "+1".repeat(n));
        let not = |n| format!("{}$in.t", "!".repeat(n));
        let and = |n| format!("true{}", "&&true".repeat(n));
        all(&[
            (&brackets(63), json!(1)),
            (&calls(63), json!(7)),
            (&sum(127), json!(134)),
            (&not(127), json!(false)),
            (&and(127), json!(true)),
        ]);
        for deep in [brackets(64), calls(64), sum(128), not(128), and(128)] {
            assert_eq!(refusal(&deep), "it is nested too deep");
        }
        for deep in [brackets(500), sum(500), not(1000), "-".repeat(1024)] {
            assert_eq!(refusal(&deep), "it is nested too deep");
        }
        assert_eq!(refusal(&"(".repeat(1024)), "a ( is not closed");
        assert_eq!(
            refusal(&" ".repeat(1025)),
            "it has 1025 bytes, more than 1024"
        );
        let long = Expression::parse(&"ž".repeat(600)).unwrap_err();
        assert!(long.to_string().len() < 250);
    });
}

#[test]
fn never_panics() {
    on_a_small_stack(|| {
        let words = "$in $f.n $out.a[0] $ . label score x in [ ] ( ) , abs( min( len( round( 1 0 2.5 1e9 'a' \"b\" \
                     ' \" \\ + - * / % < > = ! && || ?? ? true false \0 ž 🐎 { } ; ` # \u{7f}";
        let tokens: Vec<&str> = words.split(' ').chain([" ", "\n"]).collect();
        let mut seed = 1u64;
        let mut next = |most: usize| {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (seed >> 33) as usize % most
        };
        let mut taken = 0;
        for _ in 0..20_000 {
            let length = 1 + next(12);
            let text: String = (0..length).map(|_| tokens[next(tokens.len())]).collect();
            match Expression::parse(&text) {
                Ok(expression) => {
                    taken += 1;
                    let text = expression
                        .evaluate(&record())
                        .map(|value| value.to_string());
                    assert!(!text.is_err_and(|error| error.to_string().contains("r_")));
                }
                Err(error) => assert!(!error.reason.contains("r_"), "{error}"),
            }
        }
        assert!(taken > 100, "{taken}");
    });
}
