//! The program's own code in memory: what only starting needed is given back.

#![expect(unsafe_code, reason = "madvise takes an address")]

use std::fs;
use std::io;
use std::ops::Range;

/// Gives back the pages of the program's code. Those that are still needed come back from the page
/// cache at their next use; those that only starting needed (reading configuration, making keys) no
/// longer count as resident. Returns the bytes of code.
///
/// Code is never written, so nothing can be lost: the file cannot change while it runs (`ETXTBSY`).
///
/// # Errors
/// Of madvise(2), or without /proc.
pub fn release_code() -> io::Result<usize> {
    let here = release_code as *const () as usize;
    let mut bytes = 0;
    for code in code_with(&fs::read_to_string("/proc/self/maps")?, here) {
        // JUSTIFICATION: rustix's madvise is as unsafe, since other advice can lose data.
        // SAFETY: the range is a private mapping of a file, readable and executable and never
        // writable, as the kernel told a moment ago; nobody unmaps the program. Its pages equal the
        // file's, from which they come back.
        let status = unsafe {
            libc::madvise(
                std::ptr::with_exposed_provenance_mut(code.start),
                code.len(),
                libc::MADV_DONTNEED,
            )
        };
        if status != 0 {
            return Err(io::Error::last_os_error());
        }
        bytes += code.len();
    }
    Ok(bytes)
}

/// Executable, unwritable private mappings of the file that `address` is mapped from, out of
/// proc_pid_maps(5).
fn code_with(maps: &str, address: usize) -> Vec<Range<usize>> {
    let code = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        let is_code = fields.next()? == "r-xp";
        let file = (fields.nth(1)?.to_owned(), fields.next()?.to_owned());
        (is_code && file.1 != "0").then_some((range, file))
    };
    let all: Vec<_> = maps.lines().filter_map(code).collect();
    let own = all.iter().find(|(range, _)| range.contains(&address));
    let Some(file) = own.map(|(_, file)| file.clone()) else {
        return Vec::new();
    };
    let ours = all.into_iter().filter(|(_, of)| *of == file);
    ours.map(|(range, _)| range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_code_of_the_same_file_is_found() {
        let maps = "\
            1000-2000 r--p 00000000 fe:00 77 /bin/program\n\
            2000-5000 r-xp 00001000 fe:00 77 /bin/program\n\
            5000-6000 rw-p 00004000 fe:00 77 /bin/program\n\
            8000-9000 r-xp 00000000 fe:00 78 /lib/libc.so.6\n\
            a000-b000 r-xp 00000000 00:00 0 [vdso]\n";
        let code = vec![Range {
            start: 0x2000,
            end: 0x5000,
        }];
        assert_eq!(code_with(maps, 0x2800), code);
        assert!(code_with(maps, 0x5800).is_empty());
        assert!(code_with(maps, 0xa800).is_empty());
    }

    #[test]
    fn the_program_goes_on_after_its_code_was_given_back() {
        let bytes = release_code().unwrap();
        assert!(bytes > 1 << 20, "{bytes}");
        assert_eq!(release_code().unwrap(), bytes);
    }
}
