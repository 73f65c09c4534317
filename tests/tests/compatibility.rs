//! The compatibility page says what is there: its APIs are the router's, and its tests exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use tests::client_matrix::CASES;
use tests::client_matrix::client::CLIENTS;
use tests::repository;

fn page() -> String {
    fs::read_to_string(repository().join("clients/COMPATIBILITY.md")).expect("the page")
}

/// The cells of the rows of every table whose header begins with `first`.
fn rows(page: &str, first: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_matches('|');
        inner
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    let mut rows = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        let cells = cells(line);
        if !line.starts_with('|') {
            inside = false;
        } else if cells.first().is_some_and(|cell| cell == first) {
            inside = true;
        } else if inside && !line.contains("---") {
            rows.push(cells);
        }
    }
    rows
}

#[test]
fn the_apis_are_those_of_the_router() {
    let listed: BTreeMap<i16, (String, String)> = rows(&page(), "key")
        .into_iter()
        .map(|row| {
            let key = row[0].parse().expect("an API key");
            assert_eq!(row.len(), 4, "{row:?}");
            assert!(
                row[3].split('.').count() == 3,
                "since which release: {row:?}"
            );
            (key, (row[1].clone(), row[2].clone()))
        })
        .collect();
    let served: BTreeMap<i16, (String, String)> = broker::router::table()
        .iter()
        .map(|api| {
            let (first, last) = (api.versions.start(), api.versions.end());
            let versions = if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            };
            (api.key as i16, (api.name().to_owned(), versions))
        })
        .collect();
    assert_eq!(listed, served);
}

#[test]
fn the_tests_that_it_names_exist() {
    let mut missing = BTreeSet::new();
    let mut named = 0;
    for row in rows(&page(), "behaviour") {
        let tests = row.last().expect("a cell with tests");
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test is named: {row:?}");
        for name in names {
            let (file, function) = name.split_once("::").expect("`file::test`");
            let source = fs::read_to_string(repository().join(file)).unwrap_or_default();
            let is_there = source.contains(&format!("fn {function}("));
            named += 1;
            if !is_there {
                missing.insert(name.to_owned());
            }
        }
    }
    assert!(named > 0, "the table of behaviours is not there");
    assert!(
        missing.is_empty(),
        "of {named} tests these are missing: {missing:#?}"
    );
}

#[test]
fn the_clients_are_those_of_the_matrix_and_passed_at_their_pinned_versions() {
    let rows: Vec<Vec<String>> = rows(&page(), "client");
    let listed: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(listed, CLIENTS.each_ref().map(|client| client.name));
    for (row, client) in rows.iter().zip(&CLIENTS) {
        // kcat is what the system has, and not pinned.
        if client.name != "kcat" {
            assert_eq!(row[1], client.version().expect("its version"), "{row:?}");
        }
        assert_eq!(row.len(), 2 + CASES.len(), "{row:?}");
        let passed = |cell: &String| cell.starts_with('✓') || cell.starts_with('-');
        assert!(row[2..].iter().all(passed), "{row:?}");
    }
}
