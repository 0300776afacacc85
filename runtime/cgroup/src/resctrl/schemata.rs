//! Shares as text: `L3:0=7f0;1=1f`.

/// True if the shares in force are those of a line: the kernel writes numbers in its own way, and rounds a bandwidth up
/// to the next step of the machine's.
pub(super) fn holds(present: &str, asked: &str, step: u64) -> bool {
    let Some((resource, wanted)) = parse(asked) else { return false };
    let mut lines = present.lines().filter_map(parse);
    let Some((_, found)) = lines.find(|(name, _)| *name == resource) else { return false };
    wanted.iter().all(|(domain, share)| {
        let value = found.iter().find(|(other, _)| other == domain).map(|(_, value)| *value);
        match resource {
            "MB" => decimal(share)
                .zip(value.and_then(decimal))
                .is_some_and(|(asked, found)| asked == found || asked.next_multiple_of(step.max(1)) == found),
            _ => mask(share).is_some_and(|asked| value.and_then(mask) == Some(asked)),
        }
    })
}

/// The resource, and the share of each of its domains.
fn parse(line: &str) -> Option<(&str, Vec<(&str, &str)>)> {
    let (resource, shares) = line.split_once(':')?;
    let shares = shares.split(';').map(str::trim).filter(|share| !share.is_empty());
    let shares =
        shares.map(|share| share.split_once('=').map(|(domain, share)| (domain.trim(), share.trim())));
    Some((resource.trim(), shares.collect::<Option<_>>()?))
}

fn decimal(text: &str) -> Option<u64> {
    text.parse().ok()
}

fn mask(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESENT: &str = "    MB:0= 20;1=100\n    L3:0=007f0;1=0001f\n";

    #[test]
    fn numbers_are_compared_not_texts() {
        for same in ["L3:0=7f0;1=1f", "L3:1=1F", "L3:0=0x7f0", "MB:0=20;1=100", "MB:0=11", "MB:"] {
            assert!(holds(PRESENT, same, 10), "{same}");
        }
        for other in ["L3:0=7f0;1=3f", "L3:2=1f", "MB:0=21", "L2:0=f", "L3:0=", "L3:x", "nonsense"] {
            assert!(!holds(PRESENT, other, 10), "{other}");
        }
    }
}
