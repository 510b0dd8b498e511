//! Changes that more than one random writer makes.

/// One statement on the tables `keyed (id PRIMARY KEY, v text, large text)` with values that TOAST leaves unchanged, `bare (a, b numeric, c json)` without any key,
/// `parent (id)` and `child (id, parent)`. Few keys, so that changes meet: `a` and `b` are numbers below some sixty; of
/// `which`, 0 to 10 differ.
pub(crate) fn change(which: u64, a: u64, b: u64) -> String {
    match which {
        0 | 1 => format!(
            "INSERT INTO keyed VALUES ({a}, 'v{b}', repeat('{b}', 3000)) ON CONFLICT (id) DO UPDATE SET v = excluded.v || '!'"
        ),
        2 => format!("UPDATE keyed SET v = 'u{b}' WHERE id = {a}"),
        3 => format!(
            "UPDATE keyed SET id = {b} + 100 WHERE id = {a} AND NOT EXISTS (SELECT FROM keyed WHERE id = {b} + 100)"
        ),
        4 => format!("DELETE FROM keyed WHERE id IN ({a}, {b} + 100)"),
        5 | 6 => format!("INSERT INTO bare VALUES ({a}, {b} / 10.0, '{{\"a\": {b}}}'), ({a}, NULL, NULL)"),
        7 => format!("UPDATE bare SET b = b + 1 WHERE ctid = (SELECT ctid FROM bare WHERE a = {a} LIMIT 1)"),
        8 => format!("DELETE FROM bare WHERE ctid = (SELECT ctid FROM bare WHERE a >= {a} LIMIT 1)"),
        9 => format!(
            "INSERT INTO parent VALUES ({a}) ON CONFLICT DO NOTHING; INSERT INTO child VALUES ({b}, {a}) ON CONFLICT DO NOTHING"
        ),
        _ => format!("DELETE FROM child WHERE parent = {a}; DELETE FROM parent WHERE id = {a}"),
    }
}
