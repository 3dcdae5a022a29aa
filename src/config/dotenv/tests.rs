use super::*;

/// The environment of every test: `OUT` and `BOTH` have values, `EMPTY` is empty, nothing else
/// is set.
fn outer(name: &str) -> Option<String> {
    match name {
        "OUT" => Some("outer".to_string()),
        "BOTH" => Some("from-environment".to_string()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn parse_here(text: impl AsRef<[u8]>) -> Result<BTreeMap<String, String>> {
    parse(Path::new("dir/.env"), text.as_ref(), &|name| name != "FOREIGN", &outer)
}

/// Checks that every text gives exactly the listed variables.
fn check(cases: &[(&str, &[(&str, &str)])]) {
    for (text, expected) in cases {
        let expected: BTreeMap<String, String> = expected.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        match parse_here(text) {
            Ok(vars) => assert_eq!(vars, expected, "{text:?}"),
            Err(error) => panic!("{text:?}: {error}"),
        }
    }
}

/// Checks the value of `K` in every text.
fn check_k(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        match parse_here(text) {
            Ok(vars) => assert_eq!(vars.get("K").map(String::as_str), Some(*expected), "{text:?}"),
            Err(error) => panic!("{text:?}: {error}"),
        }
    }
}

#[test]
fn statements() {
    check(&[
        ("", &[]),
        (" \t\r\n\n", &[]),
        ("# only\n  # comments", &[]),
        ("K=v", &[("K", "v")]),
        ("K=v\n", &[("K", "v")]),
        ("\n \t K \t=\t v \t\n", &[("K", "v")]),
        ("export K=v\n\texport\tL=w", &[("K", "v"), ("L", "w")]),
        (
            "export=v\nexported=w\nexport.x=y",
            &[("export", "v"), ("exported", "w"), ("export.x", "y")],
        ),
        ("K: v\nL : w:x\nM:y", &[("K", "v"), ("L", "w:x"), ("M", "y")]),
        ("K=a=b:c=", &[("K", "a=b:c=")]),
        ("K=\nL=''\nM=\"\"\nN=", &[("K", ""), ("L", ""), ("M", ""), ("N", "")]),
        (
            "a.b=1\nc-d=2\ne[0]=3\n\u{df}=4\n_=5",
            &[("a.b", "1"), ("c-d", "2"), ("e[0]", "3"), ("\u{df}", "4"), ("_", "5")],
        ),
        ("K=1\nL=2\nK=3", &[("K", "3"), ("L", "2")]),
        ("\u{feff}K=v", &[("K", "v")]),
        (
            "\u{feff}# c\r\nK=v\r\n\r\nL='w'\r\nM=\"x\" # c\r\nN=\r\nO=y\r\n",
            &[("K", "v"), ("L", "w"), ("M", "x"), ("N", ""), ("O", "y")],
        ),
        ("K=one two  three", &[("K", "one two  three")]),
        ("K=gr\u{fc}n \u{5024}", &[("K", "gr\u{fc}n \u{5024}")]),
    ]);
}

#[test]
fn a_key_alone_inherits() {
    check(&[
        ("OUT", &[("OUT", "outer")]),
        ("OUT\nK=v", &[("OUT", "outer"), ("K", "v")]),
        ("export OUT \r\nEMPTY\n", &[("OUT", "outer"), ("EMPTY", "")]),
        ("UNSET\nK=v", &[("K", "v")]),
        // The file comes first, as with `BOTH=file; export BOTH` in a shell.
        ("BOTH=file\nexport BOTH", &[("BOTH", "file")]),
    ]);
}

#[test]
fn comments() {
    check_k(&[
        ("K=v # c", "v"),
        ("K=v   #c", "v"),
        ("K=v# not", "v# not"),
        ("K=a#b", "a#b"),
        ("K=a#b # c # d", "a#b"),
        ("K=v\t# not after a tab", "v\t# not after a tab"),
        ("K=#not", "#not"),
        ("K= # not at the start", "# not at the start"),
        ("K='v' # c", "v"),
        ("K='v'# c", "v"),
        ("K=\"v # not\"\t#c", "v # not"),
        ("K=v # it's \"open\n", "v"),
        ("#K=no\nK=v", "v"),
    ]);
}

#[test]
fn quotes() {
    check_k(&[
        ("K='a b'", "a b"),
        ("K = ' a '", " a "),
        (r"K='$A ${A} $$ \n \\ `x`'", r"$A ${A} $$ \n \\ `x`"),
        (r"K='it\'s'", "it's"),
        (r#"K='say "x"'"#, r#"say "x""#),
        (r#"K="it's""#, "it's"),
        (r#"K="say \"x\"""#, r#"say "x""#),
        (r#"K="back\\""#, r"back\"),
        (r#"K="\\\"""#, r#"\""#),
        (r#"K="a\nb\rc\td""#, "a\nb\rc\td"),
        (r#"K="\a\b\f\v""#, "\x07\x08\x0c\x0b"),
        (r#"K="\0101\0377""#, "A\u{ff}"),
        (r#"K="\0 \012 \0400 \0+12""#, r"\0 \012 \0400 \0+12"),
        ("K=\"\\0\u{e4}\u{e4} \\\u{e4}\"", "\\0\u{e4}\u{e4} \\\u{e4}"),
        (r#"K="\c \x41 \' C:\dir""#, r"\c \x41 \' C:\dir"),
        (r#"K="\\n""#, r"\n"),
        ("K='a\nb\n\nc'", "a\nb\n\nc"),
        ("K=\"a\nb # no comment\n\"\nL=1", "a\nb # no comment\n"),
        ("K=\"a\r\nb\"\r\n", "a\r\nb"),
        ("K=\"a\\\nb\"", "a\\\nb"),
        // Within an unquoted value, quotes and backslashes are plain text.
        (r#"K=a"b"'c'"#, r#"a"b"'c'"#),
        (r"K=C:\new\\x", r"C:\new\\x"),
    ]);
}

#[test]
fn interpolation() {
    let cases = [
        ("$A", "file"),
        ("${A}", "file"),
        ("<$A>-${A}x", "<file>-filex"),
        ("$A-b", "file-b"),
        ("$Ab", ""),
        ("$OUT ${OUT}", "outer outer"),
        ("$BOTH", "in-file"),
        ("[$UNSET${UNSET}]", "[]"),
        ("${UNSET:-d}${EMPTY:-e}${A:-f}", "defile"),
        ("${UNSET-d}${EMPTY-e}${A-f}", "dfile"),
        ("[${UNSET:+d}${EMPTY:+e}${A:+f}]", "[f]"),
        ("[${UNSET+d}${EMPTY+e}${A+f}]", "[ef]"),
        ("${A:?m}${A?m}${EMPTY?m}", "filefile"),
        ("${UNSET:-}${UNSET-}", ""),
        ("${UNSET:-${OUT}}", "outer"),
        ("${UNSET:-a${EMPTY:-b${UNSET-c$A}d}e}f", "abcfiledef"),
        ("${UNSET:-:-?+x}", ":-?+x"),
        ("${UNSET:-http://h:1/?a=b}", "http://h:1/?a=b"),
        ("${UNSET:-{x}}", "{x}"),
        ("${A:+{$A}}", "{file}"),
        ("${UNSET:-a b}", "a b"),
        ("$$A $${A} $$", "$A ${A} $"),
        ("$ a$ $1 $- $. $", "$ a$ $1 $- $. $"),
        ("p$(touch x)q `id`", "p$(touch x)q `id`"),
        ("{$A}", "{file}"),
    ];
    for (value, expected) in cases {
        for text in [
            format!("A=file\nBOTH=in-file\nK={value}"),
            format!("A=file\nBOTH=in-file\nK=\"{value}\""),
        ] {
            check_k(&[(&text, expected)]);
        }
    }
    check_k(&[
        (r#"K="\$OUT \${OUT} \\$OUT""#, r"$OUT ${OUT} \outer"),
        // Unquoted, a backslash does not escape.
        (r"K=\$OUT", r"\outer"),
        ("K=$K\nK=${K}a\nK=${K}b", "ab"),
        ("K=$L\nL=later", ""),
        ("L='$OUT'\nK=$L", "$OUT"),
        ("K=\"${UNSET:-a\nb}\"", "a\nb"),
    ]);
}

#[test]
fn a_value_that_is_not_what_is_written_there_is_noted() {
    let noted = |text: &str| {
        let (_, rewritten) = parse_noting(Path::new(".env"), text.as_bytes(), &|_| true, &outer).unwrap();
        rewritten.contains("K")
    };
    for written in [
        "My$Kitchen-2024",
        "a$$$b",
        "$UNSET",
        "${UNSET}",
        "$EMPTY",
        "$OUT-1",
        "a${OUT}",
        "$OUT$OUT",
        "${OUT}}",
        "${UNSET:-$UNSET}",
    ] {
        assert!(noted(&format!("K={written}")), "{written}");
        assert!(noted(&format!("K=\"{written}\"")), "{written}");
        assert!(!noted(&format!("K='{written}'")), "{written}");
    }
    for text in ["K=a #b", r#"K="\\$OUT""#, r#"K="a\tb""#, "L=a$b\nK=$L", "K=b\nK=a #b"] {
        assert!(noted(text), "{text}");
    }
    for text in [
        "K=a#b",
        "K=a # comment",
        "K=a$$b",
        "K=\"a$$b\"",
        "K=a$",
        "K=a$1 $-",
        "K=$OUT",
        "K=${OUT}",
        "K=${UNSET:-}",
        "K=\"${EMPTY-}\"",
        "K=${UNSET:-${UNSET:-}}",
        "K=\"${UNSET:-a}\" # comment",
        "L='a$b'\nK=${L}",
        r#"K="a\$b \\ \"c\"""#,
        "K='a #b'",
        "K='a' # comment",
        "K=a$b\nK=c",
        "OUT=a$b\nK=c",
    ] {
        assert!(!noted(text), "{text}");
    }
}

#[test]
fn errors_name_file_and_line_and_never_the_value() {
    let deep = format!("A=1\nK={}s3cret{}", "${A:-".repeat(40), "}".repeat(40));
    let cases: &[(&[u8], usize, &str)] = &[
        (b"A=1\nK='s3cret\nmore\n", 2, "the quote ' is not closed"),
        (b"\n\nK=\"s3cret\\\"\nL=1\n", 3, "the quote \" is not closed"),
        (b"K='s3cret\\'", 1, "the quote ' is not closed"),
        (b"K=\"s3cret\\", 1, "the quote \" is not closed"),
        (b"=s3cret", 1, "a variable name is expected"),
        (b"export =s3cret", 1, "a variable name is expected"),
        (b"A='\n\n'\n%s3cret=1", 4, "a variable name is expected"),
        (b"A B=s3cret", 1, "the variable name is invalid"),
        (b"s3cret$x=1", 1, "the variable name is invalid"),
        (b"s3cret+/x==\n", 1, "the variable name is invalid"),
        (b"K # s3cret", 1, "the variable name is invalid"),
        (b"# c\r\n\r\nA=1\r\nK=s3cret\0", 4, "NUL byte"),
        (b"K=\"s3cret\\0000\"", 1, "NUL byte"),
        (b"A=1\nK=s3cret\xfc\nB=2", 2, "not UTF-8"),
        (b"\xff\xfeK\0=\0", 1, "not UTF-8"),
        (b"\xfe\xff\x30\x42", 1, "not UTF-8"),
        (b"# \xe4\n\nK=\"\ns3cret\xe4\"", 3, "the value of K is not UTF-8"),
        (b"FOREIGN=s3cret\xe4\nK=${FOREIGN}", 2, "the value of K is not UTF-8"),
        (b"K=${UNSET:-s3cret\xe4}", 1, "the value of K is not UTF-8"),
        (b"K\xe4=s3cret", 1, "the variable name is invalid"),
        (b"K='s3cret'x", 1, "text after the closing quote of K"),
        (b"A=1\nK=\"a\ns3cret\" B=2", 3, "text after the closing quote of K"),
        (b"K=\"s3cret\"\"x\"", 1, "text after the closing quote of K"),
        (b"K=s3cret${", 1, "${ is not closed"),
        (b"K=s3cret${A:-x # }", 1, "${ is not closed"),
        (b"K=${A:-${B}s3cret", 1, "${ is not closed"),
        (b"K=\"s3cret\n${A\"", 1, "in the value of K: ${ is not closed"),
        (b"K=s3cret${}", 1, "${ is not followed by"),
        (b"K=${ s3cret}", 1, "${ is not followed by"),
        (b"K=${1s3cret}", 1, "${ is not followed by"),
        (b"K=${:-s3cret}", 1, "${ is not followed by"),
        (b"K=${-s3cret}", 1, "${ is not followed by"),
        (b"K=${A:}s3cret", 1, "${ is not followed by"),
        (b"K=${A:=s3cret}", 1, "${ is not followed by"),
        (b"K=${A/s3cret/x}", 1, "${ is not followed by"),
        (b"K=${OUT:-${s3cret!}}", 1, "${ is not followed by"),
        (
            b"A=1\nK=s3cret${UNSET:?}",
            2,
            "the required variable UNSET has no value; set it",
        ),
        (
            b"K=s3cret${EMPTY:?set it, please}",
            1,
            "the required variable EMPTY has no value (set it, please);",
        ),
        (
            b"P=s3cret\nK=${UNSET?see $P}",
            2,
            "the required variable UNSET has no value (see $P);",
        ),
        (
            b"K=${UNSET:-s3cret${UNSET?}}",
            1,
            "the required variable UNSET has no value",
        ),
        (deep.as_bytes(), 2, "nested too deeply"),
    ];
    for (text, line, problem) in cases {
        let shown = String::from_utf8_lossy(text);
        let Err(error) = parse_here(text) else {
            panic!("{shown:?} is accepted");
        };
        let message = format!("{error:#}");
        assert!(
            message.starts_with(&format!("dir/.env, line {line}: ")),
            "{shown:?}: {message}"
        );
        assert!(message.contains(problem), "{shown:?}: {message}");
        assert!(!message.contains("s3cret"), "{shown:?}: {message}");
        assert!(!message.contains('\n') && message.is_ascii(), "{shown:?}: {message}");
    }
}

#[test]
fn what_is_not_utf_8_is_let_pass_where_nobody_reads_it() {
    let text = b"# gr\xfc\xdfe\nFOREIGN='caf\xe9' # \xe9\nA=$FOREIGN_\xe9 #\xe9\nK=\xc3\xa9\n";
    let vars = parse(Path::new(".env"), text, &|name| name == "K", &outer).unwrap();
    assert_eq!(vars["K"], "\u{e9}");
    let other = parse_here(b"FOREIGN=caf\xe8").unwrap();
    assert_ne!(vars["FOREIGN"], other["FOREIGN"]);
    assert!(vars["FOREIGN"].starts_with("caf") && vars["FOREIGN"].chars().count() == 4);
}

#[test]
fn a_file_cut_short_anywhere_never_panics() {
    let text = "\u{feff}A=\"x\\0101\\\"${B:-${C+\u{fc}}}$$\" # c\r\nexport D='\u{fc}\\''\nE: ${F?m}\\\nG";
    let mut accepted = 0;
    for end in 0..=text.len() {
        accepted += usize::from(parse_here(&text.as_bytes()[..end]).is_ok());
    }
    assert!(
        accepted > 0 && accepted < text.len(),
        "{accepted} prefixes are accepted"
    );
}
