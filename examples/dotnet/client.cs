// The smallest client: no package, no project file. It sends its certificate without intermediate CAs; console/ sends them too.
//
//   P12_PASSWORD=... dotnet run client.cs -- <issuer> <client id> <client.p12> <API url>
using System.Net.Http.Headers;
using System.Security.Cryptography.X509Certificates;
using System.Text.Json.Nodes;

var (issuer, clientId, file, api) = (args[0], args[1], args[2], args[3]);
var certificate = X509CertificateLoader.LoadPkcs12FromFile(file, Environment.GetEnvironmentVariable("P12_PASSWORD"));
using var http = new HttpClient(new SocketsHttpHandler { SslOptions = { ClientCertificates = [certificate] } });

var metadata = JsonNode.Parse(await http.GetStringAsync($"{issuer}/.well-known/oauth-authorization-server"))!;
var endpoint = (string)metadata["mtls_endpoint_aliases"]!["token_endpoint"]!;

using var response = await http.PostAsync(endpoint, new FormUrlEncodedContent(new Dictionary<string, string>
{
    ["grant_type"] = "client_credentials",
    ["client_id"] = clientId,
}));
var body = await response.Content.ReadAsStringAsync();
if (!response.IsSuccessStatusCode) throw new Exception($"{endpoint}: {(int)response.StatusCode} {body}");

http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", (string)JsonNode.Parse(body)!["access_token"]!);
Console.WriteLine(await http.GetStringAsync(api));
