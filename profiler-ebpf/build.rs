//! Says for which processor's registers the programs are built: aya's crates ask the same variable. As a flag of the
//! compiler it would have the core library built once for each.

fn main() {
    const ARCH: &str = "AYA_BPF_TARGET_ARCH";
    println!("cargo::rerun-if-env-changed={ARCH}");
    if let Ok(arch) = std::env::var(ARCH) {
        println!("cargo::rustc-cfg=bpf_target_arch=\"{arch}\"");
    }
}
