//! Reads iperf3's JSON.

use serde_json::Value;

use crate::error::{Error, Result};

/// What a transfer moved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transfer {
    /// Bytes that the receiver got.
    pub bytes: f64,
    /// How long it took, seconds.
    pub seconds: f64,
}

/// Parses the output of `iperf3 --json`.
///
/// # Errors
/// What iperf3 says went wrong, or that it is not its JSON.
pub fn parse(output: &str) -> Result<Transfer> {
    let unreadable = |why: &str| Error::Unreadable {
        what: "iperf3".into(),
        why: why.into(),
    };
    let start = output.find('{').ok_or_else(|| unreadable("no JSON"))?;
    let value: Value = serde_json::Deserializer::from_str(&output[start..])
        .into_iter()
        .next()
        .ok_or_else(|| unreadable("no JSON"))?
        .map_err(|e| unreadable(&e.to_string()))?;
    if let Some(error) = value["error"].as_str() {
        return Err(unreadable(error));
    }
    let received = &value["end"]["sum_received"];
    match (received["bytes"].as_f64(), received["seconds"].as_f64()) {
        (Some(bytes), Some(seconds)) if seconds > 0.0 => Ok(Transfer { bytes, seconds }),
        _ => Err(unreadable("no sum of what was received")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_receiver_got_counts() {
        let output = "warning: x\n{\"end\": {\"sum_sent\": {\"bytes\": 9, \"seconds\": 2},
            \"sum_received\": {\"bytes\": 8, \"seconds\": 2.5}}}\n";
        let transfer = parse(output).unwrap();
        assert_eq!((transfer.bytes, transfer.seconds), (8.0, 2.5));
    }

    #[test]
    fn its_own_error_is_passed_on() {
        let error = parse("{\"end\": {}, \"error\": \"the server is busy\"}").unwrap_err();
        assert!(error.to_string().contains("busy"));
    }

    #[test]
    fn other_output_is_an_error() {
        for output in ["", "iperf3: error", "{\"end\": {}}", "{\"end\":"] {
            assert!(parse(output).is_err(), "{output}");
        }
    }
}
