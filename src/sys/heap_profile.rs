//! Heap profiles of jemalloc: whether it can make them, whether it samples, and what it has sampled.
//! See PROFILING in jemalloc(3), and mallctl(3).

#![expect(unsafe_code, reason = "jemalloc's control interface is a C function")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsRawFd, OwnedFd};
use std::{ptr, slice};

use rustix::fs::MemfdFlags;

/// A dump larger than this is not read: 100,000 stacks fit.
const DUMP_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// How jemalloc starts: able to profile, not yet sampling, later one sample for each 512 KiB.
const OPTIONS: &[u8] = b"prof:true,prof_active:false,lg_prof_sample:19\0";

/// The variable jemalloc reads before `main`; it holds the address of [`OPTIONS`].
// SAFETY: jemalloc declares `const char *malloc_conf` under this name and expects a string that ends
// with a zero byte and lives for ever: a reference to a static array of bytes with one is just that.
#[unsafe(export_name = "_rjem_malloc_conf")]
#[used]
static MALLOC_CONF: &[u8; 46] = first_chunk(OPTIONS);

const fn first_chunk(bytes: &'static [u8]) -> &'static [u8; 46] {
    match bytes.first_chunk() {
        Some(chunk) => chunk,
        None => &[0; 46],
    }
}
const _: () = assert!(OPTIONS.len() == 46);

/// Whether memory of this program is jemalloc's, and jemalloc can profile it.
#[must_use]
pub fn is_available() -> bool {
    // Named here so that the variable is linked wherever this is.
    let configured = !std::hint::black_box(MALLOC_CONF).is_empty();
    configured && cfg!(feature = "jemalloc") && read_flag(c"opt.prof").unwrap_or(false)
}

/// Whether allocations are sampled now.
///
/// # Errors
/// jemalloc cannot profile.
pub fn is_active() -> io::Result<bool> {
    read_flag(c"prof.active")
}

/// Begins to sample allocations, or ends it.
///
/// # Errors
/// jemalloc cannot profile.
pub fn set_active(active: bool) -> io::Result<()> {
    let mut active = active;
    control(c"prof.active", None, Some(bytes_of(&mut active)))
}

/// The sampled allocations that have not been freed, as jemalloc writes them (`heap_v2`).
///
/// # Errors
/// jemalloc cannot profile, or there is no memory for the dump.
pub fn dump() -> io::Result<String> {
    // No file system is needed that can be written to.
    let memory: OwnedFd = rustix::fs::memfd_create("heap-profile", MemfdFlags::CLOEXEC)?;
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let path = CString::new(path).map_err(io::Error::other)?;
    let mut name: *const c_char = path.as_ptr();
    control(c"prof.dump", None, Some(bytes_of(&mut name)))?;
    let mut file = File::from(memory);
    file.rewind()?;
    let mut text = String::new();
    file.take(DUMP_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn read_flag(name: &CStr) -> io::Result<bool> {
    let mut flag = false;
    control(name, Some(bytes_of(&mut flag)), None)?;
    Ok(flag)
}

/// The memory of a plain value, for jemalloc to read or write.
fn bytes_of<T: Copy>(value: &mut T) -> &mut [u8] {
    let at = ptr::from_mut(value).cast::<u8>();
    // JUSTIFICATION: mallctl(3) takes values of any type by address and size.
    // SAFETY: the bytes are those of `value`, which stays borrowed exclusively as long as they are;
    // both types used, `bool` and a pointer, have no padding, and jemalloc writes only valid values.
    unsafe { slice::from_raw_parts_mut(at, size_of::<T>()) }
}

/// Reads the value of `name` into `old`, sets it to `new`.
fn control(name: &CStr, old: Option<&mut [u8]>, new: Option<&mut [u8]>) -> io::Result<()> {
    let mut old_bytes = old.as_ref().map_or(0, |old| old.len());
    let (old, old_size): (*mut c_void, *mut usize) = match old {
        Some(old) => (old.as_mut_ptr().cast(), &raw mut old_bytes),
        None => (ptr::null_mut(), ptr::null_mut()),
    };
    let (new, new_size): (*mut c_void, usize) = match new {
        Some(new) => (new.as_mut_ptr().cast(), new.len()),
        None => (ptr::null_mut(), 0),
    };
    // JUSTIFICATION: jemalloc has no other interface.
    // SAFETY: `name` ends with a zero byte; `old` and `new` are null or point to as many bytes as their
    // sizes say, borrowed until the call returns; jemalloc checks the sizes against the value's type.
    let code = unsafe { tikv_jemalloc_sys::mallctl(name.as_ptr(), old, old_size, new, new_size) };
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Whether it samples concerns the whole program: see the test of the endpoints.
    #[test]
    fn a_dump_has_the_known_form() {
        assert!(is_available());
        let dump = dump().unwrap();
        assert!(dump.starts_with("heap_v2/524288\n"), "{dump}");
        assert!(dump.contains("MAPPED_LIBRARIES"), "{dump}");
    }
}
