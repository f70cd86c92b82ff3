//! The checks of a host against what a node needs, one file a group.

mod conntrack;
mod cpu;
mod descriptors;
mod kernel;
mod network;
mod pipes;
mod ports;
mod privileges;
mod ring;
mod tcp;

use super::finding::Finding;
use super::host::Host;
use super::needs::Needs;

/// Runs every check.
pub(super) fn all(host: &Host, needs: &Needs, out: &mut Vec<Finding>) {
    for check in [
        kernel::check,
        cpu::check,
        ring::check,
        descriptors::check,
        pipes::check,
        ports::check,
        conntrack::check,
        tcp::check,
        network::check,
        privileges::check,
    ] {
        check(host, needs, out);
    }
}

/// Bytes for people: whole KiB, MiB or GiB where exact enough.
fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = UNITS.into_iter().find(|(_, size)| count >= *size);
    let Some((name, size)) = unit else {
        return format!("{count} B");
    };
    let tenths = (u128::from(count) * 10).div_ceil(u128::from(size));
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} {name}"),
        (whole, part) => format!("{whole}.{part} {name}"),
    }
}

/// A number for people: `1,048,576`.
fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A limit for people.
fn limit(count: Option<u64>) -> String {
    count.map_or_else(|| "unlimited".to_owned(), number)
}

/// CPUs for people: `0-3,8`.
fn cpu_list(cpus: impl IntoIterator<Item = usize>) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let texts: Vec<String> = runs
        .into_iter()
        .map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_written_for_people() {
        for (count, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1 KiB"),
            (8 << 20, "8 MiB"),
            ((1 << 20) + 1, "1.1 MiB"),
            (u64::MAX, "17179869184 GiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        for (count, text) in [
            (7, "7"),
            (999, "999"),
            (1_000, "1,000"),
            (1_048_576, "1,048,576"),
        ] {
            assert_eq!(number(count), text);
        }
        assert_eq!(cpu_list([0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(cpu_list([]), "");
    }
}
