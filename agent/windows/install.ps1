<#
.SYNOPSIS
Installs the vTPM attestation agent as a Windows service.

.DESCRIPTION
Makes a virtual environment below Program Files, installs the agent into it, writes its settings, and registers and
starts a service that attests at boot and then continuously. Running it again updates the agent and its settings; what
the agent remembers stays. Settings and state are readable by SYSTEM and Administrators alone.

.PARAMETER Server
The verifier, https://HOST[:PORT].

.PARAMETER TokenFile
File with the join token of `attest-verifier tokens create --scope join`. It is copied; delete yours afterwards.

.PARAMETER Package
What pip installs: a wheel, a folder with the sources, or a name with extras.

.PARAMETER CaFile
CA of the verifier (PEM), if the join token carries no fingerprint.

.PARAMETER Python
A Python of 3.11 or later for all users.

.PARAMETER Uninstall
Removes service and program. With -Purge also settings and state.

.EXAMPLE
.\install.ps1 -Server https://verifier.example:8443 -TokenFile C:\join-token -Package .\vtpm_attest_agent-0.1.0-py3-none-any.whl

.EXAMPLE
.\install.ps1 -Uninstall -Purge
#>
#Requires -Version 5.1
#Requires -RunAsAdministrator
[CmdletBinding(DefaultParameterSetName = 'Install', SupportsShouldProcess = $true)]
param(
    [Parameter(Mandatory = $true, ParameterSetName = 'Install')]
    [ValidatePattern('^https://')]
    [string] $Server,

    [Parameter(ParameterSetName = 'Install')]
    [string] $TokenFile,

    [Parameter(ParameterSetName = 'Install')]
    [string] $Package = 'vtpm-attest-agent',

    [Parameter(ParameterSetName = 'Install')]
    [string] $CaFile,

    [Parameter(ParameterSetName = 'Install')]
    [string] $Python = 'python.exe',

    [Parameter(Mandatory = $true, ParameterSetName = 'Uninstall')]
    [switch] $Uninstall,

    [Parameter(ParameterSetName = 'Uninstall')]
    [switch] $Purge
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

$ServiceName = 'vtpm-attest-agent'
$Program = Join-Path $env:ProgramFiles 'vtpm-attest'
$Data = Join-Path $env:ProgramData 'vtpm-attest'

function Invoke-Program {
    param([string] $File, [string[]] $Arguments)
    & $File @Arguments
    if ($LASTEXITCODE -ne 0) {
        throw "$File $($Arguments -join ' ') ended with $LASTEXITCODE"
    }
}

function Remove-AgentService {
    $service = Get-Service -Name $ServiceName -ErrorAction SilentlyContinue
    if ($null -eq $service) { return }
    if ($service.Status -ne 'Stopped') {
        Stop-Service -Name $ServiceName
        $service.WaitForStatus('Stopped', [TimeSpan]::FromSeconds(60))
    }
    Invoke-Program -File "$env:SystemRoot\System32\sc.exe" -Arguments @('delete', $ServiceName)
}

function New-PrivateFolder {
    param([string] $Path)
    New-Item -ItemType Directory -Path $Path -Force | Out-Null
    # S-1-5-18 is SYSTEM, S-1-5-32-544 Administrators: names differ with the language of Windows.
    Invoke-Program -File "$env:SystemRoot\System32\icacls.exe" -Arguments @(
        $Path, '/inheritance:r', '/grant:r', '*S-1-5-18:(OI)(CI)F', '*S-1-5-32-544:(OI)(CI)F', '/q')
}

function Assert-Tpm {
    $tpm = Get-Tpm
    if (-not $tpm.TpmPresent) {
        throw 'Windows finds no TPM: add a vTPM to this VM (it needs EFI firmware), or enable the TPM in the firmware'
    }
}

function Install-Program {
    $version = & $Python -c 'import sys; print(sys.version_info >= (3, 11))'
    if ($LASTEXITCODE -ne 0 -or $version -ne 'True') {
        throw "$Python is no Python of 3.11 or later: install one for all users, or name it with -Python"
    }
    $venvPython = Join-Path $Program 'Scripts\python.exe'
    if (-not (Test-Path -LiteralPath $venvPython)) {
        Invoke-Program -File $Python -Arguments @('-m', 'venv', $Program)
    }
    $what = "$Package[tpm,windows]"
    Invoke-Program -File $venvPython -Arguments @('-m', 'pip', 'install', '--upgrade', $what)
    Invoke-Program -File $venvPython -Arguments @('-c', 'import agent.esapi, servicemanager, tpm2_pytss')
    return $venvPython
}

function ConvertTo-TomlText {
    param([string] $Value)
    return '"' + $Value.Replace('\', '\\').Replace('"', '\"') + '"'
}

function Write-Settings {
    $lines = @("server = $(ConvertTo-TomlText $Server)")
    if ($TokenFile) {
        $token = Join-Path $Data 'join-token'
        Copy-Item -LiteralPath $TokenFile -Destination $token -Force
        $lines += "token_file = $(ConvertTo-TomlText $token)"
    }
    if ($CaFile) {
        $ca = Join-Path $Data 'ca.pem'
        Copy-Item -LiteralPath $CaFile -Destination $ca -Force
        $lines += "ca_file = $(ConvertTo-TomlText $ca)"
    }
    # WriteAllLines writes UTF-8 without a byte order mark, which Set-Content of Windows PowerShell cannot.
    [System.IO.File]::WriteAllLines((Join-Path $Data 'agent.toml'), $lines)
}

function Register-AgentService {
    param([string] $VenvPython)
    New-Service -Name $ServiceName -BinaryPathName "`"$VenvPython`" -m agent.windows.service" `
        -DisplayName 'vTPM attestation agent' -StartupType Automatic -DependsOn 'TBS' `
        -Description 'Proves to a vtpm-attest verifier how this machine booted, at boot and then continuously.' | Out-Null
    # Again after 5 s, 30 s and every 5 minutes; a day without failure forgets them.
    Invoke-Program -File "$env:SystemRoot\System32\sc.exe" -Arguments @(
        'failure', $ServiceName, 'reset=', '86400', 'actions=', 'restart/5000/restart/30000/restart/300000')
    Start-Service -Name $ServiceName
}

if ($Uninstall) {
    if ($PSCmdlet.ShouldProcess($ServiceName, 'remove the service and its program')) {
        Remove-AgentService
        if (Test-Path -LiteralPath $Program) { Remove-Item -LiteralPath $Program -Recurse -Force }
        if ($Purge -and (Test-Path -LiteralPath $Data)) { Remove-Item -LiteralPath $Data -Recurse -Force }
    }
    return
}

Assert-Tpm
if ($PSCmdlet.ShouldProcess($ServiceName, "install and start, attesting to $Server")) {
    Remove-AgentService
    $venvPython = Install-Program
    New-PrivateFolder -Path $Data
    Write-Settings
    Register-AgentService -VenvPython $venvPython
    Get-Service -Name $ServiceName
    Write-Output 'It writes to the Application event log; `attest-agent status` tells what it knows.'
}
