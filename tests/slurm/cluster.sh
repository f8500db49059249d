#!/usr/bin/env bash
# Run a SLURM of one node on loopback: munge, slurmctld and slurmd of Debian's packages slurm-wlm and munge, with two
# fake GPUs. Installs nothing and needs no systemd; all files are below DIR.
#   tests/slurm/cluster.sh up DIR PORT      then: . DIR/environment
#   tests/slurm/cluster.sh down DIR
set -euo pipefail
PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
command=$1
home=$(realpath -m "$2")

# End the daemons of DIR and no others: by now a pid may belong to another process.
down() {
    SLURM_CONF=$home/slurm.conf timeout 5 scancel --quiet --user="$(id -un)" || true
    for file in "$home"/run/{slurmd,slurmctld,munged}.pid; do
        pid=$(cat "$file" 2>/dev/null) || continue
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$(basename "$file" .pid)" ] || continue
        kill -TERM "$pid"
        for _ in $(seq 100); do
            grep -qs '^State:.[^Z]' "/proc/$pid/status" || break
            sleep 0.1
        done
    done
}

up() {
    port=$1
    cpus=$(env -u OMP_NUM_THREADS nproc)  # nproc takes that number, which tests set to 1, for the number of cores
    mkdir -p "$home"/{bin,log,run,spool,state}
    chmod 755 "$home" "$home"/*
    # The node has an address, by which the processes of a training find each other. A fake GPU is any character device.
    # Without cgroups the poll of the accounting plugin ends a job that exceeds its memory; a requeued job waits for the
    # expiry of its credential.
    cat >"$home/slurm.conf" <<CONF
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$port
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$home/run/munge.socket,cred_expire=5
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/run/slurmctld.pid
SlurmdPidFile=$home/run/slurmd.pid
SlurmctldLogFile=$home/log/slurmctld.log
SlurmdLogFile=$home/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_min_interval=0,sched_interval=2,bf_interval=2,batch_sched_delay=0
GresTypes=gpu
DefMemPerCPU=500
KillWait=20
MinJobAge=600
ReturnToService=2
NodeName=localhost NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=$cpus RealMemory=8000 Gres=gpu:2
PartitionName=gpu Nodes=ALL Default=YES MaxTime=1-00:00:00 State=UP
CONF
    printf 'NodeName=localhost Name=gpu File=/dev/%s\n' null zero >"$home/gres.conf"
    # The executor plugin removes every SLURM variable before it calls srun, SLURM_CONF too.
    for client in sbatch srun squeue scancel scontrol sinfo; do
        printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$home/slurm.conf" "$(command -v "$client")" >"$home/bin/$client"
        chmod +x "$home/bin/$client"
    done
    echo "export SLURM_CONF=$home/slurm.conf PATH=$home/bin:\$PATH" >"$home/environment"
    head -c 1024 /dev/urandom >"$home/run/munge.key"
    chmod 400 "$home/run/munge.key"
    munged --force --socket="$home/run/munge.socket" --key-file="$home/run/munge.key" \
        --pid-file="$home/run/munged.pid" --log-file="$home/log/munged.log" --seed-file="$home/run/munge.seed"
    slurmctld -f "$home/slurm.conf" -c
    slurmd -f "$home/slurm.conf" -N localhost
    for _ in $(seq 100); do
        [ "$(SLURM_CONF=$home/slurm.conf timeout 5 sinfo --noheader --Node --format %T 2>/dev/null)" = idle ] && exit 0
        sleep 0.1
    done
    tail -n 20 "$home"/log/*.log >&2
    down
    exit 1
}

"$command" "${3-}"
