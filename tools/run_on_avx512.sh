#!/usr/bin/env bash
#
# run_on_avx512.sh - run a Linux x86-64 program on an emulated CPU with AVX-512
#
#   tools/run_on_avx512.sh [--add PATH]... BINARY [ARGS...]
#
# Why: the AVX-512 (VNNI) kernels must be tested on machines whose CPU has no
# AVX-512, too. QEMU's TCG does not emulate AVX-512; the whole-system emulator
# Bochs does. Intel's SDE does as well, but it is not free software.
#
# What: boots Debian's cloud kernel in Bochs with an initramfs made of BINARY,
# the shared libraries `ldd` lists for it and a tiny init; runs it with ARGS in
# the caller's working directory (as a path; the files in it are not there,
# see --add), copies its output (stdout and stderr) live to stdout, powers off
# and exits with its exit code (128+N if signal N killed it). The variables
# FOURFOLD_* and GTEST_* of the caller are passed on. Nothing is installed, and
# no root rights are needed.
#
#   --add PATH   also copy this file or directory (data files, dlopen'ed
#                libraries, ...) to the same absolute path; may be repeated
#
# Environment:
#   RUN_ON_AVX512_CPU      Bochs CPU model, default corei7_icelake_u; some others
#                          (`bochs --help cpu` lists them all):
#                            tigerlake           VNNI, VP2INTERSECT
#                            corei7_icelake_u    VNNI
#                            corei7_skylake_x    AVX-512 without VNNI
#                            corei7_haswell_4770 AVX2 only
#   RUN_ON_AVX512_MEM      memory in MiB, default 1024 (at most 2048)
#   RUN_ON_AVX512_TIMEOUT  kill the machine after so many seconds (exit code 124)
#   RUN_ON_AVX512_BOCHS    Bochs program, default bochs-bin; one built without
#                          its debugger would be faster than Debian's
#   RUN_ON_AVX512_KERNEL   a vmlinuz (with CONFIG_PVH) to use instead of Debian's
#   RUN_ON_AVX512_KEEP     if not empty, keep the working directory (and say where)
#
# Exit codes of the script itself: 124 timeout, 125 the machine failed, 2 usage
# or missing packages.
#
# How the machine boots, as it is unusual: there is no BIOS, boot loader or disk.
# The uncompressed kernel, its start information and the initramfs are one image
# that Bochs loads into memory, and a 64 KiB ROM enters the kernel's PVH entry
# point. This saves about 15 s. The program's output leaves through an emulated
# parallel port (unlike a serial port it has no baud rate to wait for), the exit
# code through a second one, and the kernel's messages through a serial port.

set -euo pipefail

readonly self=${0##*/}
readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/fourfold/avx512
readonly cpu=${RUN_ON_AVX512_CPU:-corei7_icelake_u}
readonly memory=${RUN_ON_AVX512_MEM:-1024}
readonly bochs=${RUN_ON_AVX512_BOCHS:-bochs-bin}

# Physical addresses. The kernel is linked to 16 MiB and must end below the start
# information, which must end below the initramfs.
readonly kernel_address=$((0x1000000))
readonly info_address=$((0x5f00000))
readonly initrd_address=$((0x6000000))

# Kernel command line.
#  - Bochs 2.7's CPUID reports a wrong size for the compacted XSAVE area and for
#    PKRU, on which Linux would turn off all of XSAVE and so AVX-512: noxsaves,
#    clearcpuid=pku,xsavec.
#  - It also reports FSRM with "fast strings" disabled; the memmove of Linux 6.1
#    then overruns short buffers: clearcpuid=fsrm.
#  - The rest makes the boot short, or fits a machine without BIOS and ACPI.
readonly cmdline="console=ttyS0,115200 quiet panic=-1 reboot=t rdinit=/init \
noxsaves clearcpuid=pku,xsavec,fsrm \
nokaslr mitigations=off nosmp noapic acpi=off pci=off idle=halt tsc=reliable \
random.trust_cpu=on init_on_alloc=0 lsm=capability cryptomgr.notests noreplace-smp \
transparent_hugepage=never initcall_blacklist=trace_eval_init,load_system_certificate_list"

work=
bochs_pid=
sleep_pid=

die() {
  printf '%s: %s\n' "$self" "$*" >&2
  exit 2
}

usage() {
  printf 'usage: %s [--add PATH]... BINARY [ARGS...]\n' "$self" >&2
  exit 2
}

# shellcheck disable=SC2317,SC2329  # called by traps
cleanup() {
  # Bochs' debugger catches SIGINT and SIGTERM, hence SIGKILL.
  local pid
  for pid in $bochs_pid $sleep_pid; do
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  if [[ -n $work ]]; then
    if [[ -n ${RUN_ON_AVX512_KEEP:-} ]]; then
      printf '%s: files kept in %s\n' "$self" "$work" >&2
    else
      rm -rf "$work"
    fi
  fi
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

check_packages() {
  local missing=() plugin
  has() { command -v "$1" >/dev/null 2>&1; }
  if [[ -z ${RUN_ON_AVX512_BOCHS:-} ]]; then
    has bochs-bin || missing+=(bochs)
    plugin=$(compgen -G '/usr/lib/*/bochs/plugins/libbx_term_gui.so') || plugin=
    [[ -n $plugin ]] || missing+=(bochs-term)
  elif ! has "$bochs"; then
    die "RUN_ON_AVX512_BOCHS: no program $bochs"
  fi
  [[ -e /usr/share/bochs/VGABIOS-lgpl-latest ]] || [[ ${missing[0]:-} == bochs ]] || missing+=(bochs)
  has gcc || missing+=(gcc)
  has objcopy || missing+=(binutils)
  compgen -G '/usr/lib/*/libc.a' >/dev/null || missing+=(libc6-dev)
  has cpio || missing+=(cpio)
  has lz4 || missing+=(lz4)
  if ((${#missing[@]})); then
    printf '%s: packages are missing, run:\n' "$self" >&2
    printf 'apt-get install --no-install-recommends %s\n' "${missing[*]}" >&2
    exit 2
  fi
}

# little_endian FILE OFFSET BYTES: an unsigned number in a file
little_endian() {
  od -A n -t "u$3" -j "$2" -N "$3" "$1" | tr -d ' '
}

# Sets $kernel (a directory with vmlinux.bin, a memory image for address
# kernel_address, and the file pvh_entry), filling the cache if need be.
prepare_kernel() {
  local vmlinuz=${RUN_ON_AVX512_KERNEL:-} package='' tmp setup payload length magic entry
  if [[ -n $vmlinuz ]]; then
    [[ -r $vmlinuz ]] || die "cannot read the kernel $vmlinuz"
    kernel=$cache/kernel-$(sha256sum "$vmlinuz" | cut -c1-16)
  else
    # Any version that is in the cache will do.
    kernel=$(compgen -G "$cache/linux-image-*" | sort -V | tail -n 1 || true)
    if [[ -z $kernel ]]; then
      package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: *\(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
      [[ -n $package ]] || die "apt knows no linux-image-cloud-amd64 (apt-get update? Debian?); or set RUN_ON_AVX512_KERNEL"
      kernel=$cache/$package
    fi
  fi
  [[ ! -e $kernel/pvh_entry ]] || return 0

  tmp=$work/kernel
  mkdir "$tmp"
  if [[ -n $package ]]; then
    printf '%s: downloading %s (once)\n' "$self" "$package" >&2
    (cd "$tmp" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$package" >&2) ||
      die "apt-get download $package failed"
    dpkg-deb --fsys-tarfile "$tmp/$package"_*.deb | tar -x -C "$tmp" --wildcards './boot/vmlinuz-*'
    vmlinuz=$(compgen -G "$tmp/boot/vmlinuz-*")
  fi

  # vmlinuz: see Documentation/arch/x86/boot.rst; the payload ends in 4 bytes that
  # hold its uncompressed size.
  setup=$((($(little_endian "$vmlinuz" 497 1) + 1) * 512))
  payload=$((setup + $(little_endian "$vmlinuz" 584 4)))
  length=$(($(little_endian "$vmlinuz" 588 4) - 4))
  tail -c +$((payload + 1)) "$vmlinuz" | head -c "$length" >"$tmp/payload" || true
  magic=$(od -A n -t x1 -N 4 "$tmp/payload" | tr -d ' ')
  case $magic in
    02214c18) lz4 -dcq "$tmp/payload" >"$tmp/vmlinux" ;;
    28b52ffd) zstd -dcq "$tmp/payload" >"$tmp/vmlinux" ;;
    fd377a58) xz -dcq "$tmp/payload" >"$tmp/vmlinux" ;;
    *) die "$vmlinuz: unknown compression $magic" ;;
  esac
  # The ELF note PHYS32_ENTRY (type 0x12) of Xen is the PVH entry point.
  entry=$(LC_ALL=C readelf -nW "$tmp/vmlinux" 2>/dev/null |
    sed -n 's/.*(0x00000012).*data: \(..\) \(..\) \(..\) \(..\).*/0x\4\3\2\1/p')
  [[ -n $entry ]] || die "$vmlinuz has no PVH entry point (CONFIG_PVH)"
  objcopy -O binary "$tmp/vmlinux" "$tmp/vmlinux.bin"
  (($(stat -c %s "$tmp/vmlinux.bin") <= info_address - kernel_address)) || die "$vmlinuz is too big"
  mkdir -p "$kernel"
  mv "$tmp/vmlinux.bin" "$kernel/"
  printf '%s\n' "$entry" >"$tmp/pvh_entry"
  mv "$tmp/pvh_entry" "$kernel/" # last: it marks a complete directory
  rm -rf "$tmp"
}

# Sets $init, compiling it if need be.
prepare_init() {
  cat >"$work/init.c" <<'EOF'
// Process 1: runs the program given in /.run/ on a pseudo terminal (so that its
// stdout is line buffered), copies its output to parallel port 1, sends its exit
// code to parallel port 2 and powers off.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

enum { kPort1 = 0x378, kPort2 = 0x278 };

static void send_bytes(unsigned short port, const char* data, ssize_t size) {
  for (ssize_t i = 0; i < size; ++i) {
    outb(data[i], port);
    outb(0x0d, port + 2);  // strobe
    outb(0x0c, port + 2);
  }
}

// The strings of a file in which each one ends in a NUL byte.
static char** read_strings(const char* path) {
  size_t count = 0, space = 0;
  char **list = calloc(1, sizeof *list), *line = NULL;
  FILE* file = fopen(path, "r");
  while (file && getdelim(&line, &space, 0, file) >= 0) {
    list = realloc(list, (count + 2) * sizeof *list);
    list[count++] = line;
    list[count] = line = NULL;
    space = 0;
  }
  return list;
}

int main(void) {
  mount("dev", "/dev", "devtmpfs", 0, NULL);
  mount("proc", "/proc", "proc", 0, NULL);
  mount("sys", "/sys", "sysfs", 0, NULL);
  mkdir("/dev/pts", 0755);
  mkdir("/dev/shm", 01777);
  mount("pts", "/dev/pts", "devpts", 0, NULL);
  mount("shm", "/dev/shm", "tmpfs", 0, NULL);
  klogctl(8, NULL, 7);  // messages about crashes of the program to the console
  iopl(3);
  outb(0x08, kPort1 + 2), outb(0x0c, kPort1 + 2);
  outb(0x08, kPort2 + 2), outb(0x0c, kPort2 + 2);

  char** argv = read_strings("/.run/argv");
  char** env = read_strings("/.run/env");
  char** cwd = read_strings("/.run/cwd");
  int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  grantpt(master);
  unlockpt(master);
  pid_t pid = fork();
  if (pid == 0) {
    setsid();
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    struct termios mode;
    tcgetattr(slave, &mode);
    cfmakeraw(&mode);
    tcsetattr(slave, TCSANOW, &mode);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, 0), dup2(slave, 1), dup2(slave, 2);
    if (null > 2) close(null);
    if (slave > 2) close(slave);
    if (chdir(cwd[0]) != 0) perror(cwd[0]);
    execve(argv[0], argv, env);
    perror(argv[0]);
    _exit(127);
  }

  int status = 0, ended = 0;
  static char buffer[1 << 16];
  for (;;) {
    struct pollfd poll_fd = {.fd = master, .events = POLLIN};
    int ready = poll(&poll_fd, 1, ended ? 0 : 100);
    if (ready > 0) {
      ssize_t size = read(master, buffer, sizeof buffer);
      if (size > 0) {
        send_bytes(kPort1, buffer, size);
        continue;
      }
      break;  // no process has it open any more
    }
    if (ended) break;
    ended = waitpid(pid, &status, WNOHANG) == pid;
  }
  if (!ended) waitpid(pid, &status, 0);
  char text[16];
  int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  send_bytes(kPort2, text, snprintf(text, sizeof text, "%d\n", code));
  usleep(1000);
  for (const char* c = "Shutdown"; *c; ++c) outb(*c, 0x8900);  // ends Bochs
  for (;;) pause();
}
EOF
  init=$cache/init-$(sha256sum "$work/init.c" | cut -c1-16)
  [[ ! -x $init ]] || return 0
  gcc -O2 -static -o "$work/init" "$work/init.c"
  mv "$work/init" "$init"
}

# copy PATH: to the same absolute path in the initramfs, symbolic links resolved
copy() {
  mkdir -p "$root$(dirname "$1")"
  cp -rL "$1" "$root$(dirname "$1")/"
}

prepare_initrd() {
  local library
  mkdir -p "$root"/{dev,proc,sys,tmp,root,.run} "$root$PWD"
  cp "$init" "$root/init"
  copy "$binary"
  for library in "${libraries[@]}"; do copy "$library"; done
  for path in "${added[@]}"; do copy "$path"; done
  printf '%s\0' "$binary" "$@" >"$root/.run/argv"
  printf '%s\0' "$PWD" >"$root/.run/cwd"
  {
    printf '%s\0' PATH=/usr/bin:/bin HOME=/root TMPDIR=/tmp
    env -0 | grep -zE '^(FOURFOLD|GTEST)_' || true
  } >"$root/.run/env"
  (cd "$root" && find . -print0 | cpio -0 -o -H newc -R 0:0 --quiet) >"$work/initrd"
  rm -rf "$root"
}

prepare_machine() {
  local size defines
  size=$(stat -c %s "$work/initrd")
  ((initrd_address + 3 * size + (64 << 20) <= memory << 20)) ||
    die "the initramfs has $((size >> 20)) MiB: too big for a memory of $memory MiB, see RUN_ON_AVX512_MEM"

  cat >"$work/rom.S" <<'EOF'
    .code16                     # mapped at 0xffff0000, entered at 0xfffffff0
start:
    cli
    movb $2, %al                # address line 20 on
    outb %al, $0x92
    lgdtl %cs:gdtr - start
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $8, $(0xffff0000 + (flat - start))
    .code32
flat:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    # Bochs allots memory in blocks of 128 KiB, in the order of their first use, but
    # has loaded the image as if all of them were in order already: make it so.
    movl $KERNEL, %esi
1:  movb (%esi), %al
    addl $0x20000, %esi
    cmpl $IMAGE_END, %esi
    jb 1b
    movl $INFO, %ebx
    movl $PVH_ENTRY, %eax
    jmp *%eax
    .balign 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:
    .word . - gdt - 1
    .long 0xffff0000 + (gdt - start)
    .org 0xfff0
    .code16
    jmp start
    .org 0x10000
EOF
  cat >"$work/info.S" <<'EOF'
info:                           # struct hvm_start_info of Xen
    .long 0x336ec578, 1, 0, 1
    .quad INFO + modules - info, INFO + cmdline - info, 0, INFO + map - info
    .long 2, 0
modules:
    .quad INITRD, INITRD_SIZE, 0, 0
map:
    .quad 0, 0x9f000, 1
    .quad 0x100000, MEMORY - 0x100000, 1
cmdline:
    .asciz CMDLINE
EOF
  defines=(
    "-DKERNEL=$kernel_address" "-DINFO=$info_address" "-DPVH_ENTRY=$(<"$kernel/pvh_entry")"
    "-DINITRD=$initrd_address" "-DINITRD_SIZE=$size" "-DIMAGE_END=$((initrd_address + size))"
    "-DMEMORY=$((memory << 20))" "-DCMDLINE=\"$cmdline\""
  )
  for name in rom info; do
    gcc "${defines[@]}" -c -o "$work/$name.o" "$work/$name.S"
    objcopy -O binary -j .text "$work/$name.o" "$work/$name.bin"
  done
  cp "$kernel/vmlinux.bin" "$work/image"
  chmod u+w "$work/image"
  truncate -s $((info_address - kernel_address)) "$work/image"
  cat "$work/info.bin" >>"$work/image"
  truncate -s $((initrd_address - kernel_address)) "$work/image"
  cat "$work/initrd" >>"$work/image"
  rm "$work/initrd"

  # The ips relate the emulated timers to the instructions executed.
  cat >"$work/bochsrc" <<EOF
config_interface: textconfig
display_library: term
cpu: model=$cpu, count=1, ips=100000000, reset_on_triple_fault=0
memory: guest=$memory, host=$memory
romimage: file="$work/rom.bin"
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
optramimage1: file="$work/image", address=$(printf '0x%x' "$kernel_address")
boot: floppy
ata0: enabled=0
ata1: enabled=0
speaker: enabled=0
mouse: enabled=0
clock: sync=none, time0=utc
parport1: enabled=1, file="$work/output"
parport2: enabled=1, file="$work/status"
com1: enabled=1, mode=file, dev="$work/kernel.log"
log: "$work/bochs.log"
panic: action=fatal
error: action=ignore
info: action=report
debug: action=ignore
EOF
}

show_logs() {
  local name
  for name in bochs.log kernel.log screen; do
    [[ -s $work/$name ]] || continue
    printf -- '--- end of %s\n' "$name"
    tail -n 15 "$work/$name" | tr -cd '\t\n -~'
  done >&2
}

run_machine() {
  local options=(-q -f "$work/bochsrc") help status timeout=0 cat_pid
  # Debian's Bochs has the debugger built in, which waits for a command first.
  help=$("$bochs" --help 2>&1 </dev/null || true)
  if [[ $help == *'-rc filename'* ]]; then
    printf 'continue\n' >"$work/debugger"
    options+=(-rc "$work/debugger")
  fi

  mkfifo "$work/output"
  cat "$work/output" &
  cat_pid=$!
  exec 3>"$work/output"
  TERM=vt100 "$bochs" "${options[@]}" </dev/null >"$work/screen" 2>&1 3>&- &
  bochs_pid=$!
  if [[ -n ${RUN_ON_AVX512_TIMEOUT:-} ]]; then
    sleep "$RUN_ON_AVX512_TIMEOUT" 3>&- &
    sleep_pid=$!
    wait -n "$bochs_pid" "$sleep_pid" || true
    if kill -KILL "$sleep_pid" 2>/dev/null; then
      wait "$sleep_pid" 2>/dev/null || true
    else
      timeout=1
      kill -KILL "$bochs_pid" 2>/dev/null || true
    fi
    sleep_pid=
  fi
  wait "$bochs_pid" 2>/dev/null || true
  bochs_pid=
  exec 3>&-
  wait "$cat_pid"

  # Bochs' own exit code tells nothing (the power-off is a "panic" for it).
  status=$(cat "$work/status" 2>/dev/null || true)
  if [[ -z $status ]]; then
    if ((timeout)); then
      printf '%s: timeout\n' "$self" >&2
      exit 124
    fi
    printf '%s: the machine failed\n' "$self" >&2
    show_logs
    exit 125
  fi
  if ((status > 128)); then
    printf '%s: exit code %d, killed by SIG%s?\n' "$self" "$status" "$(kill -l "$status" 2>/dev/null || echo '?')" >&2
    grep -aE 'traps:|segfault|Out of memory' "$work/kernel.log" >&2 || true
  fi
  exit "$status"
}

added=()
while [[ ${1:-} == -* ]]; do
  case $1 in
    --add)
      [[ -n ${2:-} ]] || usage
      [[ -r $2 ]] || die "cannot read $2"
      added+=("$(realpath -s "$2")")
      shift 2
      ;;
    --) shift; break ;;
    *) usage ;;
  esac
done
(($# >= 1)) || usage
check_packages
[[ $memory =~ ^[0-9]{3,4}$ ]] || die "RUN_ON_AVX512_MEM must be a number of MiB"
((memory >= 256 && memory <= 2048)) || die "RUN_ON_AVX512_MEM must be 256...2048"
[[ -f $1 && -x $1 ]] || die "no such program: $1"
binary=$(realpath -s "$1")
shift
[[ $(od -A n -t x1 -N 5 "$binary" | tr -d ' ') == 7f454c4602 ]] || die "$binary is not a 64-bit ELF program"

# ldd fails for a statically linked program.
ldd_output=$(LC_ALL=C ldd "$binary" 2>&1) || ldd_output=
[[ $ldd_output != *'not found'* ]] || die "$binary: missing libraries:"$'\n'"$ldd_output"
mapfile -t libraries < <(sed -nE 's/^.*[[:space:]](\/[^[:space:]]+) \(0x[0-9a-f]+\)$/\1/p' <<<"$ldd_output" | sort -u)

mkdir -p "$cache"
work=$(mktemp -d "${TMPDIR:-/tmp}/run_on_avx512.XXXXXX")
root=$work/root
kernel='' init=''
prepare_kernel
prepare_init
prepare_initrd "$@"
prepare_machine
run_machine
