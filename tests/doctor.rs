//! `corelane doctor` as a program: its exit codes and its JSON object, whoever runs it.

#[cfg(test)]
mod doctor {
    use std::path::Path;
    use std::process::{Command, Output};

    use serde_json::Value;

    const NODE: &str = "mode: node\nlocalState: s.yaml\nidentityDir: ids\n";

    fn doctor(arguments: &[&str]) -> Output {
        // A limit that every host can give.
        Command::new("sh")
            .args(["-c", "ulimit -n 512 && exec \"$0\" doctor \"$@\""])
            .arg(env!("CARGO_BIN_EXE_corelane"))
            .args(arguments)
            .env_clear()
            .output()
            .unwrap()
    }

    fn with_config(dir: &Path, text: &str) -> Output {
        let file = dir.join("corelane.yaml");
        std::fs::write(&file, text).unwrap();
        doctor(&["--json", "--config", file.to_str().unwrap()])
    }

    fn object(output: &Output) -> Value {
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[test]
    fn a_host_without_a_node_has_no_problem() {
        let output = doctor(&["--json"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let object = object(&output);
        assert_eq!(object["format"], 1);
        assert_eq!(object["summary"]["problem"], 0);
        let findings = object["findings"].as_array().unwrap();
        for finding in findings {
            let members: Vec<&String> = finding.as_object().unwrap().keys().collect();
            let documented = [
                "command", "effect", "found", "group", "id", "level", "profiles", "subject",
            ];
            assert_eq!(members, documented);
        }
        assert!(
            findings
                .iter()
                .any(|finding| finding["id"] == "io_uring.trial")
        );
    }

    #[test]
    fn a_demand_that_the_host_does_not_meet_is_a_problem_with_an_exit_code_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let modest = with_config(dir.path(), &format!("{NODE}limits: {{connections: 10}}\n"));
        assert_eq!(modest.status.code(), Some(0), "{modest:?}");
        let greedy = with_config(
            dir.path(),
            &format!("{NODE}limits: {{connections: 1000}}\n"),
        );
        assert_eq!(greedy.status.code(), Some(2), "{greedy:?}");
        let object = object(&greedy);
        let findings = object["findings"].as_array().unwrap();
        let limit = findings
            .iter()
            .find(|finding| finding["id"] == "descriptors.limit");
        assert_eq!(limit.unwrap()["level"], "problem");
    }

    #[test]
    fn a_configuration_that_is_wrong_is_told_like_anywhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let output = with_config(dir.path(), &format!("{NODE}limit: 1\n"));
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("limit: unknown key"), "{told}");
        assert!(output.stdout.is_empty());
    }

    #[test]
    fn text_for_a_pipe_has_no_colour_and_a_chosen_profile_alone() {
        let output = doctor(&["--profile", "latency"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(text.contains("net.ipv4.tcp_notsent_lowat"));
        assert!(!text.contains("many-connections"), "{text}");
    }
}
