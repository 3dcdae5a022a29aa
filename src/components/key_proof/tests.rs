use super::*;

#[test]
fn verdicts_are_read_to_their_end() {
    let text = "missing\tcredential\t3762\t41c3a4\t61757468\nopened\tcredential\t3\nopened\tsigning\t2\nend\n";
    let verdicts = Verdicts::parse(text).unwrap();
    assert_eq!((verdicts.count("credential"), verdicts.count("signing")), (4, 2));
    assert_eq!(
        verdicts.sealed[0].to_string(),
        "ID 7b (\"A\u{e4}\", auth), whose data key is missing"
    );
    for text in [
        "",
        "opened\tcredential\t3\n",
        "odd\tcredential\t37\t\t\nend\n",
        "x\nend\n",
        "failed\tcredential\t3\t\t\nend\n",
    ] {
        assert!(Verdicts::parse(text).is_err(), "{text}");
    }
}

#[test]
fn what_is_not_opened_is_judged() {
    let sealed = |why, id: &str| Sealed {
        why,
        kind: "credential".to_owned(),
        id: id.to_owned(),
        name: "Bank".to_owned(),
        kind_of: "httpBasicAuth".to_owned(),
    };
    let judge = |sealed: Vec<Sealed>, dead: &[&str]| {
        let verdicts = Verdicts {
            sealed,
            ..Verdicts::default()
        };
        let dead: Vec<String> = dead.iter().map(|id| (*id).to_owned()).collect();
        verdicts.judge("1 of 2", &dead)
    };
    let failed = judge(vec![sealed(Why::Failed, "a"), sealed(Why::UnknownForm, "b")], &[]).unwrap_err();
    assert!(!failed.is::<Inconclusive>());
    assert!(
        failed
            .to_string()
            .ends_with("1 cannot be decrypted: ID a (\"Bank\", httpBasicAuth)"),
        "{failed}"
    );
    let unknown = judge(vec![sealed(Why::Failed, "a"), sealed(Why::UnknownForm, "b")], &["a"]).unwrap_err();
    assert!(unknown.is::<Inconclusive>());
    assert_eq!(judge(vec![sealed(Why::Failed, "a")], &["a", "z"]).unwrap(), ["a"]);
}

#[test]
fn rows_are_counted_in_pieces() {
    let mut lines = Lines::default();
    for piece in ["cred", "ential\tc\n", "key\tc\ncredential\n", "c"] {
        lines.feed(piece.as_bytes()).unwrap();
    }
    assert_eq!((lines.credentials, lines.rows), (3, 4));
}
