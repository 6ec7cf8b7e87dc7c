/* Pictures as files: from canvases, data URLs and base64, and whether a file is signed. */

export const blobOf = (canvas) => new Promise((resolve) => canvas.toBlob(resolve, "image/png"));

export function blobFrom(url) {
  const [head, body] = url.split(",");
  return new Blob([Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0))], { type: head.slice(5).split(";")[0] });
}

export const dataUrlOf = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(blob);
});

/** Whether a PNG has a C2PA manifest, which is its chunk "caBX". The signature is not verified. */
export async function isSigned(blob) {
  const bytes = new DataView(await blob.arrayBuffer());
  for (let at = 8; at + 12 <= bytes.byteLength; at += 12 + bytes.getUint32(at)) {
    if (bytes.getUint32(at + 4) === 0x63614258) return true;
  }
  return false;
}
