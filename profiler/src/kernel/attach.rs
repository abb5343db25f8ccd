//! The sampling clock: one perf event on each online CPU, following CPUs as they come and go.
//!
//! An event's CPU context dies with the CPU, and the event with it, so a CPU that comes back needs
//! a new one (`perf_event_exit_cpu` in kernel/events/core.c).

use std::collections::BTreeSet;

use aya::programs::{
    PerfEvent, ProgramError,
    perf_event::{
        HardwareEvent, PerfEventConfig, PerfEventLink, PerfEventScope, SamplePolicy, SoftwareEvent,
    },
};

use super::{
    Kernel, KernelError,
    load::{CPU_SAMPLE, program},
};

/// What ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockEvent {
    /// The kernel's software CPU clock.
    CpuClock,
    /// The processor's cycle counter.
    Cycles,
}

/// What drives the sampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Hardware or software.
    pub event: ClockEvent,
    /// Samples per second and CPU.
    pub frequency_hz: u64,
}

impl Kernel {
    /// Starts sampling on every online CPU: by hardware cycles where the processor has them, else
    /// by the kernel's CPU clock. Returns which it is.
    pub fn start_clock(&mut self, frequency_hz: u64) -> Result<Clock, KernelError> {
        let cpus = online_cpus()?;
        for event in [ClockEvent::Cycles, ClockEvent::CpuClock] {
            let clock = Clock {
                event,
                frequency_hz,
            };
            match self.attach_all(&cpus, clock) {
                Err(_) if event == ClockEvent::Cycles => self.clocks.clear(),
                Err(error) => return Err(error),
                Ok(()) => {
                    self.clock = Some(clock);
                    return Ok(clock);
                }
            }
        }
        Err(KernelError::Missing(CPU_SAMPLE))
    }

    /// Follows hot-plug: samples CPUs that came, forgets those that went. Call about once a second.
    pub fn follow_cpus(&mut self) -> Result<(), KernelError> {
        let Some(clock) = self.clock else {
            return Ok(());
        };
        let sampled = self.clocks.keys().copied().collect();
        let (came, went) = diff_cpus(&sampled, &online_cpus()?);
        for cpu in went {
            self.clocks.remove(&cpu);
        }
        self.attach_all(&came, clock)
    }

    fn attach_all(&mut self, cpus: &BTreeSet<u32>, clock: Clock) -> Result<(), KernelError> {
        for &cpu in cpus {
            let sample: &mut PerfEvent = program(&mut self.ebpf, CPU_SAMPLE)?;
            let link = attach_one(sample, cpu, clock);
            let link = link.map_err(|source| KernelError::PerfEvent {
                cpu,
                frequency_hz: clock.frequency_hz,
                source: Box::new(source),
            })?;
            self.clocks.insert(cpu, link);
        }
        Ok(())
    }
}

fn attach_one(
    program: &mut PerfEvent,
    cpu: u32,
    clock: Clock,
) -> Result<PerfEventLink, ProgramError> {
    let config = match clock.event {
        ClockEvent::CpuClock => PerfEventConfig::Software(SoftwareEvent::CpuClock),
        ClockEvent::Cycles => PerfEventConfig::Hardware(HardwareEvent::CpuCycles),
    };
    let scope = PerfEventScope::AllProcessesOneCpu { cpu };
    // `inherit` means nothing for an event of all processes.
    let inherit = false;
    let id = program.attach(
        config,
        scope,
        SamplePolicy::Frequency(clock.frequency_hz),
        inherit,
    )?;
    program.take_link(id)
}

/// Which CPUs of `online` are not sampled yet, and which sampled ones are gone.
pub fn diff_cpus(
    sampled: &BTreeSet<u32>,
    online: &BTreeSet<u32>,
) -> (BTreeSet<u32>, BTreeSet<u32>) {
    (online - sampled, sampled - online)
}

pub(super) fn online_cpus() -> Result<BTreeSet<u32>, KernelError> {
    let cpus = aya::util::online_cpus().map_err(|(_, source)| KernelError::Cpus {
        path: "/sys/devices/system/cpu/online",
        source,
    })?;
    Ok(cpus.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::diff_cpus;

    /// A CPU that came is sampled, one that went is forgotten, the others are left alone.
    #[test]
    fn follows_hot_plug() {
        let (came, went) = diff_cpus(&BTreeSet::from([0, 1, 2]), &BTreeSet::from([0, 2, 3]));
        assert_eq!((came, went), (BTreeSet::from([3]), BTreeSet::from([1])));
    }
}
